"""What a run lacks, told to an autoscaler: actors that wait for a place, and give it back once they have it.

They end with the driver, whatever ends it; a request of Ray's autoscaler SDK would outlive it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray

from distill_ray.engine.on_ray.placement import options_for
from distill_ray.engine.scheduling.room import Amounts

_MOST = 100
"""How many wait at the same time: when some have got what they wait for, others follow."""

_Wish = tuple[tuple[str, float], ...]


class _Waiting:
    """Does nothing."""


class Wishes:
    """An actor for each place that is lacking."""

    def __init__(self) -> None:
        self._there: dict[_Wish, list[Any]] = {}

    def are(self, needs: Sequence[Amounts]) -> None:
        """Let as many actors wait as there are places lacking, by what each needs."""
        wanted = Counter(tuple(sorted(each.items())) for each in needs[:_MOST])
        for wish, handles in self._there.items():
            while len(handles) > wanted[wish]:
                with suppress(IndexError):  # the last one was granted just now, on a thread of Ray's
                    ray.kill(handles.pop())
        for wish, count in wanted.items():
            handles = self._there.setdefault(wish, [])
            while len(handles) < count:
                self._make(wish, handles)

    @staticmethod
    def _make(wish: _Wish, handles: list[Any]) -> None:
        actor: Any = ray.remote(_Waiting)
        handle = actor.options(**options_for(dict(wish))).remote()
        handles.append(handle)

        def granted(_: Any) -> None:
            # On the thread of Ray's that answers come to: waiting for one here, as `ray.kill` does, would
            # never end. An actor that nobody refers to ends by itself.
            with suppress(ValueError):  # it is not wished for any more
                handles.remove(handle)

        handle.__ray_ready__.remote().future().add_done_callback(granted)
