"""Which runs live, and what of a root they use: told by watching heartbeats, without comparing clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from distill_ray.cache import paths
from distill_ray.cache.gc import InUse
from distill_ray.cache.heartbeat import BEAT_SECONDS, Beat, read_heartbeat
from distill_ray.cache.inventory import Root
from distill_ray.cache.store import READERS
from distill_ray.cache.watch import Watch

LOOKS_PER_BEAT = 4


class RunWatcher:
    """Looks at the heartbeats of runs; remembers them, so that a second look at a dead run takes no time.

    Args:
        clock: seconds that never go back.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._watches: dict[tuple[str, str], Watch] = {}
        self._seen: dict[tuple[str, str], bytes] = {}
        self._known: set[tuple[str, str]] = set()

    def look(self, roots: Iterable[Root]) -> InUse:
        """Watch every run that has a heartbeat until it is seen to live or known to be dead."""
        return self._look(_runs(roots), {})

    def look_again(self, roots: Iterable[Root]) -> InUse:
        """Look once more; runs that began since the look before count as live, even if they ended already."""
        runs = _runs(roots)
        return self._look(runs, {run: root for run, root in runs.items() if run not in self._known})

    def _look(self, runs: dict[tuple[str, str], Root], new: dict[tuple[str, str], Root]) -> InUse:
        self._known = set(runs)
        self._seen = {}  # a run is seen to live now, not at the look before
        live: dict[tuple[str, str], Root] = {}
        with ThreadPoolExecutor(READERS) as pool:
            doubtful = runs
            while doubtful:
                found = dict(zip(doubtful, pool.map(self._judge, doubtful, doubtful.values()), strict=True))
                live |= {run: doubtful[run] for run, lives in found.items() if lives}
                doubtful = {run: doubtful[run] for run, lives in found.items() if lives is None}
                if doubtful:
                    self._sleep(min(self._beat_seconds(run) for run in doubtful) / LOOKS_PER_BEAT)
        # One without a heartbeat had nothing to compute.
        return self._in_use(live | {run: root for run, root in new.items() if run in self._watches})

    def _judge(self, run: tuple[str, str], root: Root) -> bool | None:
        """Whether a run lives; None: that is not known yet."""
        asked = self._clock()
        content = read_heartbeat(root.store.storage, run[1])
        if content is None:  # it came to its end, or had nothing to do
            return False
        before = self._seen.get(run)
        beat = Beat.from_json(content)
        watch = self._watches.setdefault(run, Watch(beat.beat_seconds if beat else BEAT_SECONDS))
        if watch.is_dead(content, asked, self._clock()):
            return False
        self._seen[run] = content
        return True if before not in (None, content) else None

    def _beat_seconds(self, run: tuple[str, str]) -> float:
        beat = self._watches[run].beat
        return beat.beat_seconds if beat else BEAT_SECONDS

    def _in_use(self, live: Collection[tuple[str, str]]) -> InUse:
        runs = frozenset(run for _, run in live)
        beats = [self._watches[each].beat for each in live]
        outputs = frozenset(key for beat in beats if beat for key in beat.outputs)
        if not all(beat and beat.functions for beat in beats):
            return InUse(runs, outputs, functions=None)
        return InUse(runs, outputs, frozenset(name for beat in beats if beat for name in beat.functions))


def _runs(roots: Iterable[Root]) -> dict[tuple[str, str], Root]:
    return {
        (root.place, run): root for root in roots for run in root.store.storage.folders(paths.RUNS_FOLDER)
    }
