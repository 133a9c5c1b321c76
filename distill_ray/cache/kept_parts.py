"""Parts that were read and may be asked for again: each is read once, as long as memory allows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_KEPT_BYTES = 128 << 20
"""Bytes of rows in memory: the rows of parts of several replicas alternate, so several are read together."""


class KeptParts(Generic[K, V]):
    """Reads parts, and keeps those that were asked for last; a copy of it begins without any.

    Several threads may ask: one reads at a time, so that none reads what another is about to have.

    Args:
        read: reads one.
        size: bytes that one takes in memory.
        at_least: parts that are kept whatever their size.
        max_bytes: bytes that may be kept beyond these.
    """

    def __init__(
        self,
        read: Callable[[K], V],
        size: Callable[[V], int],
        at_least: int = 1,
        max_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._read = read
        self._size = size
        self._at_least = at_least
        self._max_bytes = max_bytes
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._spent: set[K] = set()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptParts, (self._read, self._size, self._at_least, self._max_bytes)

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def __call__(self, key: K) -> V:
        """Give a part; raises what reading it raises."""
        with self._lock:
            if key not in self._kept:
                self._make_room()
                self._kept[key] = self._read(key)
            self._spent.discard(key)
            self._kept.move_to_end(key)
            return self._kept[key]

    def spend(self, key: K) -> None:
        """Say that a part is not needed any more: it goes before another one is read."""
        with self._lock:
            self._spent.add(key)

    def _make_room(self) -> None:
        """Let go what is too much together with the next one, before that comes."""
        for key in self._spent:
            self._kept.pop(key, None)
        self._spent.clear()
        sizes = [self._size(part) for part in self._kept.values()]
        allowed = self._max_bytes - max(sizes, default=0)  # the next one may be as large
        while len(sizes) >= self._at_least and sum(sizes) > allowed:
            del sizes[0]
            self._kept.popitem(last=False)
