"""Replicas whose GPUs may be on several nodes: each has a Ray placement group, made and removed with it.

The replica's process is in the group's first bundle and takes none of the GPUs: who makes processes there,
such as vLLM's executor on Ray, finds the group as the current one and gives each of them a bundle.
"""

from __future__ import annotations

import queue
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from distill_ray.resources import StepResources


class Groups:
    """The placement groups of this run's replicas. They end with the driver, too."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, int], PlacementGroup] = {}
        self._left: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    def reserve(self, step: str, replica: int, resources: StepResources) -> dict[str, Any]:
        """Ask for a replica's group, on as few nodes as possible; return what its actor asks for instead."""
        group = placement_group(resources.bundles, strategy="PACK", name=f"{step}/{replica}")
        self._groups[step, replica] = group
        place = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
        return {"num_gpus": 0, "accelerator_type": None, "scheduling_strategy": place}

    def remove(self, step: str, replica: int) -> None:
        """Give a replica's reservation back; ends what still runs in it."""
        if (group := self._groups.pop((step, replica), None)) is not None:
            remove_placement_group(group)

    def leave(self, step: str, replica: int) -> None:
        """Have a reservation given back soon: Ray's own thread may say so, which removing would block."""
        if (step, replica) in self._groups:
            self._left.put((step, replica))

    def remove_left(self) -> None:
        """Give back what is to be."""
        while not self._left.empty():
            self.remove(*self._left.get())

    def close(self) -> None:
        """Give all reservations back."""
        for step, replica in list(self._groups):
            self.remove(step, replica)
