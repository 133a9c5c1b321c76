"""What the nodes of a cluster still have room for, where each replica is put on a node of our choice.

A replica holds one *bundle* of amounts on one node, or several that may be on several nodes; its *place* says
for each of them on which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from typing_extensions import Self

Amounts = Mapping[str, float]
"""Amounts of resources by Ray's names: ``{"CPU": 2, "GPU": 0.5}``."""

Place = tuple[str, ...]
"""For each bundle of a replica the id of the node."""

_PARTS = 10_000
"""Ray counts in these parts of one: sums of them are exact."""


def holds(node: Amounts, needs: Amounts) -> bool:
    """Whether a node could hold a bundle, if it held nothing else."""
    return all(node.get(name, 0) >= amount for name, amount in needs.items())


class Room:
    """The amounts of each node that nobody holds; below zero where more was promised than there is.

    Args:
        nodes: what each node has in all, by its id.
    """

    def __init__(self, nodes: Mapping[str, Amounts]) -> None:
        self._free = {node: _exact(amounts) for node, amounts in nodes.items()}

    def copy(self) -> Self:
        """The same, to try something out."""
        free = {node: {name: n / _PARTS for name, n in free.items()} for node, free in self._free.items()}
        return type(self)(free)

    def take(self, place: Place, bundles: Sequence[Amounts]) -> None:
        """Something holds so much there; a node that is gone has nothing to hold."""
        for node, needs in zip(place, bundles, strict=False):
            self._add(node, needs, -1)

    def give(self, place: Place, bundles: Sequence[Amounts]) -> None:
        """It holds it no more."""
        for node, needs in zip(place, bundles, strict=False):
            self._add(node, needs, 1)

    def _add(self, node: str, needs: Amounts, sign: int) -> None:
        free = self._free.get(node)
        if free is not None:
            for name, amount in _exact(needs).items():
                free[name] = free.get(name, 0) + sign * amount

    def find(self, bundles: Sequence[Amounts]) -> Place | None:
        """A place with room: on as few nodes as can be, and on those that are of the least use to others."""
        place: Place = ()
        for needs in bundles:
            node = self._best(_exact(needs), place)
            if node is None:
                break
            self._add(node, needs, -1)
            place += (node,)
        self.give(place, bundles)
        return place if len(place) == len(bundles) else None

    def _best(self, asked: Mapping[str, int], before: Place) -> str | None:
        fit = [node for node, free in self._free.items() if not _lacking(free, asked)]
        return min(fit, key=lambda node: (node not in before, *_use(self._free[node], asked)), default=None)

    def lacking(self, node: str, needs: Amounts) -> dict[str, float]:
        """What a node lacks to hold this bundle too."""
        lacking = _lacking(self._free[node], _exact(needs))
        return {name: amount / _PARTS for name, amount in lacking.items()}

    def left(self, node: str) -> dict[str, float]:
        """What nobody holds of a node."""
        return {name: max(0, amount) / _PARTS for name, amount in self._free[node].items()}


def fit_together(replicas: Iterable[Sequence[Amounts]], nodes: Mapping[str, Amounts]) -> bool:
    """Whether replicas, by their bundles, find room at the same time on empty nodes, the largest first."""
    room = Room(nodes)
    demanding = [[needs for needs in bundles if needs] for bundles in replicas]
    for bundles in sorted(demanding, key=lambda bundles: -sum(sum(needs.values()) for needs in bundles)):
        place = room.find(bundles)
        if place is None:
            return False
        room.take(place, bundles)
    return True


def _exact(amounts: Amounts) -> dict[str, int]:
    return {name: round(amount * _PARTS) for name, amount in amounts.items()}


def _lacking(free: Mapping[str, int], asked: Mapping[str, int]) -> dict[str, int]:
    return {name: amount - free.get(name, 0) for name, amount in asked.items() if free.get(name, 0) < amount}


def _use(free: Mapping[str, int], asked: Mapping[str, int]) -> tuple[int, int]:
    others = sum(1 for name, amount in free.items() if amount > 0 and name not in asked)
    return others, sum(free[name] for name in asked)
