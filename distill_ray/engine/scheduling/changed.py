"""Which steps something has happened to since they were last looked at: the others need no look."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence


class Changed:
    """Names of steps, each once, given back in the order of the graph; in the beginning all of them.

    Args:
        order: all names, each after those of the steps above it.
    """

    def __init__(self, order: Sequence[str]) -> None:
        self._order = order
        self._positions = {name: position for position, name in enumerate(order)}
        self._waiting = list(range(len(order)))
        self._there = set(self._waiting)

    def add(self, name: str) -> None:
        """Something has happened to a step."""
        position = self._positions[name]
        if position not in self._there:
            self._there.add(position)
            heapq.heappush(self._waiting, position)

    def update(self, names: Iterable[str]) -> None:
        """Something has happened to several steps."""
        for name in names:
            self.add(name)

    def add_all(self) -> None:
        """Something has happened that may concern any step."""
        self._waiting = list(range(len(self._order)))
        self._there = set(self._waiting)

    def next(self) -> str | None:
        """Take the first of them off; None: there is none."""
        if not self._waiting:
            return None
        position = heapq.heappop(self._waiting)
        self._there.remove(position)
        return self._order[position]
