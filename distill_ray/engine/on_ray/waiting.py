"""Replicas that Ray has found no place for, and those that were not asked for since no node has room."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from distill_ray.engine.messages import Event, Failure, NodesSeen, NoRoom
from distill_ray.engine.on_ray.placement import node_resources
from distill_ray.engine.on_ray.wishes import Wishes
from distill_ray.engine.scheduling.room import Amounts, holds
from distill_ray.environment import seconds_in

WAIT_SECONDS = 600.0
"""How long a run waits for a node that could hold a replica of a step, where all that could are gone."""

WAIT_VARIABLE = "DISTILL_RAY_WAIT_FOR_RESOURCES"

LOOK_SECONDS = 5.0
"""Seconds from one look to the next."""

ROOM_SECONDS = 15.0
"""How long a replica may wait for its place, longer than a process takes to start."""

_log = logging.getLogger(__name__)

Name = tuple[str, int]


class Places:
    """Which replicas wait for a place, and what the run lacks one for; looks at the nodes now and then.

    Args:
        patience: seconds to wait for nodes that an autoscaler brings; 0: there is none.
    """

    def __init__(self, patience: float) -> None:
        self._limit = patience or WAIT_SECONDS
        self._wishes = Wishes() if patience else None
        self._waiting: dict[Name, float] = {}
        self._asked: tuple[tuple[str, Amounts], ...] = ()
        self._without_node: dict[str, float] = {}
        self._looked = time.monotonic()

    def wait(self, step: str, replica: int) -> None:
        """A replica that holds something of its node was started."""
        self._waiting[step, replica] = time.monotonic()

    def gone(self, step: str, replica: int) -> None:
        """It has its place, or is not wanted any more. May be called from another thread."""
        self._waiting.pop((step, replica), None)

    def ask(self, places: tuple[tuple[str, Amounts], ...]) -> None:
        """So much there is no place for now."""
        self._asked = places
        if self._wishes:
            self._wishes.are([needs for _, needs in places])

    def look(self) -> Iterator[Event]:
        """See, now and then, what nodes there are, and who waits for a place in vain."""
        now = time.monotonic()
        if now < self._looked + LOOK_SECONDS:
            return
        seconds, self._looked = now - self._looked, now
        nodes = node_resources()
        yield NodesSeen(nodes, seconds, self._in_vain(list(nodes.values())))
        for (step, replica), since in list(self._waiting.items()):
            if now - since > ROOM_SECONDS:
                self._waiting[step, replica] = now
                yield NoRoom(step, replica)
        self.ask(self._asked)

    def close(self) -> None:
        """Ask for nothing any more."""
        self._asked = ()
        if self._wishes:
            self._wishes.are([])

    def _in_vain(self, nodes: list[Amounts]) -> Failure | None:
        """Why the run cannot go on, if a step has waited too long for a node that could hold it."""
        asked = {step: needs for step, needs in self._asked if not any(holds(node, needs) for node in nodes)}
        self._without_node = {step: since for step, since in self._without_node.items() if step in asked}
        for step, needs in asked.items():
            if step not in self._without_node:
                self._without_node[step] = time.monotonic()
                what = dict(needs)
                _log.warning("Step '%s' waits %.0f s at most for a node with %s", step, self._limit, what)
            if time.monotonic() - self._without_node[step] >= self._limit:
                return Failure(
                    step,
                    f"no node with {dict(needs)}, which it declares for each replica, came in "
                    f"{self._limit:.0f} s. Run again once there is one, or wait longer "
                    f"(wait_for_resources, {WAIT_VARIABLE}).",
                    unplaced=True,
                )
        return None


def patience(given: float | None) -> float:
    """Seconds to wait for a node from the start: what is given, or what the variable says.

    An autoscaler adds a node once something waits for it, so that nothing may be refused at the start then.
    0: what no node could hold is refused at once.
    """
    return seconds_in(WAIT_VARIABLE, 0.0) if given is None else float(given)
