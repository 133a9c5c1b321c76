"""Replicas that Ray has not found a place for: a node may come back, or never."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection

from distill_ray.engine.messages import Failure, ReplicaReady
from distill_ray.engine.on_ray.placement import is_placeable, node_resources, wanted
from distill_ray.errors import ParameterError
from distill_ray.resources import StepResources

WAIT_SECONDS = 600.0
"""How long a run waits for a node that could hold a replica of a step that has none left."""

WAIT_VARIABLE = "DISTILL_RAY_WAIT_FOR_RESOURCES"

_log = logging.getLogger(__name__)


class WaitingReplicas:
    """Replicas that were started and have not loaded: whether any node of the cluster could hold them."""

    def __init__(self) -> None:
        self._limit = wait_seconds()
        self._waiting: dict[tuple[str, int], StepResources] = {}
        self._without_node: dict[tuple[str, int], float] = {}

    def add(self, step: str, replica: int, resources: StepResources) -> None:
        """A replica was started."""
        self._waiting[step, replica] = resources

    def discard(self, step: str, replica: int) -> None:
        """It has loaded, or is not wanted any more."""
        self._waiting.pop((step, replica), None)
        self._without_node.pop((step, replica), None)

    def look(self, loaded: Collection[str]) -> ReplicaReady | None:
        """See whether one waits in vain, and has for long, of a step without a replica that is up.

        Args:
            loaded: the steps with replicas that are up.
        """
        nodes = node_resources()
        for (step, replica), resources in self._waiting.items():
            if is_placeable(resources, nodes):
                self._without_node.pop((step, replica), None)
            elif step not in loaded and self._has_waited(step, replica, resources):
                message = (
                    f"no node with {dict(wanted(resources))}, which it declares for each replica, came in "
                    f"{self._limit:.0f} s. Run again once there is one, or wait longer ({WAIT_VARIABLE})."
                )
                return ReplicaReady(step, replica, Failure(step, message))
        return None

    def _has_waited(self, step: str, replica: int, resources: StepResources) -> bool:
        if (step, replica) not in self._without_node:
            self._without_node[step, replica] = time.monotonic()
            asked = dict(wanted(resources))
            _log.warning("Step '%s' waits %.0f s at most for a node with %s", step, self._limit, asked)
        return time.monotonic() - self._without_node[step, replica] >= self._limit


def waits_for_nodes() -> bool:
    """Whether nodes may still come: where ``DISTILL_RAY_WAIT_FOR_RESOURCES`` is set.

    An autoscaler adds a node once something waits for it, so that nothing may be refused at the start.
    """
    return bool(os.environ.get(WAIT_VARIABLE))


def wait_seconds() -> float:
    """Seconds to wait for a node: the default, or those of ``DISTILL_RAY_WAIT_FOR_RESOURCES``."""
    given = os.environ.get(WAIT_VARIABLE)
    try:
        return float(given) if given else WAIT_SECONDS
    except ValueError as error:
        raise ParameterError(f"{WAIT_VARIABLE} must be a number of seconds, not {given!r}.") from error
