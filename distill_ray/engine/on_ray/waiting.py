"""Replicas that Ray has not found a place for: a node may come back, or never."""

from __future__ import annotations

import logging
import time

from distill_ray.engine.messages import Failure, NoRoom, ReplicaReady
from distill_ray.engine.on_ray.placement import is_placeable, node_resources, wanted
from distill_ray.environment import seconds_in
from distill_ray.resources import StepResources

WAIT_SECONDS = 600.0
"""How long a run waits for a node that could hold a replica of a step that has none left."""

WAIT_VARIABLE = "DISTILL_RAY_WAIT_FOR_RESOURCES"

LOOK_SECONDS = 5.0
"""Seconds from one look to the next."""

ROOM_SECONDS = 15.0
"""How long a replica may wait for its place, longer than a process takes to start, until others make room."""

_log = logging.getLogger(__name__)


class Places:
    """Which replicas have a place, and which wait for one: others may hold it, or no node may have it."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._waiting: dict[tuple[str, int], tuple[StepResources, float]] = {}
        self._placed: set[tuple[str, int]] = set()
        self._without_node: dict[tuple[str, int], float] = {}
        self._looked = time.monotonic()

    def wait(self, step: str, replica: int, resources: StepResources) -> None:
        """A replica that computes was started."""
        self._waiting[step, replica] = resources, time.monotonic()

    def placed(self, step: str, replica: int) -> None:
        """Its process is there. May be called from another thread."""
        if self._waiting.pop((step, replica), None) is not None:
            self._placed.add((step, replica))

    def gone(self, step: str, replica: int) -> None:
        """It is lost, or not wanted any more."""
        self._waiting.pop((step, replica), None)
        self._without_node.pop((step, replica), None)
        self._placed.discard((step, replica))

    def look(self) -> ReplicaReady | NoRoom | None:
        """See, now and then, whether a step without any replica waits for a place: in vain, or for long."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return None
        self._looked = time.monotonic()
        up = {step for step, _ in list(self._placed)}
        waiting = {key: each for key, each in list(self._waiting.items()) if key[0] not in up}
        nodes = node_resources() if waiting else []
        for (step, replica), (resources, since) in waiting.items():
            if not is_placeable(resources, nodes):
                if self._has_waited(step, replica, resources):
                    return ReplicaReady(step, replica, Failure(step, self._in_vain(resources)))
                continue
            self._without_node.pop((step, replica), None)
            if time.monotonic() - since > ROOM_SECONDS:
                return NoRoom(step)
        return None

    def _in_vain(self, resources: StepResources) -> str:
        return (
            f"no node with {dict(wanted(resources))}, which it declares for each replica, came in "
            f"{self._limit:.0f} s. Run again once there is one, or wait longer (wait_for_resources, "
            f"{WAIT_VARIABLE})."
        )

    def _has_waited(self, step: str, replica: int, resources: StepResources) -> bool:
        if (step, replica) not in self._without_node:
            self._without_node[step, replica] = time.monotonic()
            asked = dict(wanted(resources))
            _log.warning("Step '%s' waits %.0f s at most for a node with %s", step, self._limit, asked)
        return time.monotonic() - self._without_node[step, replica] >= self._limit


def patience(given: float | None) -> float:
    """Seconds to wait for a node that no step can do without, from the start: what is given, or the variable.

    An autoscaler adds a node once something waits for it, so that nothing may be refused at the start then.
    0: what no node could hold is refused at once.
    """
    return seconds_in(WAIT_VARIABLE, 0.0) if given is None else float(given)
