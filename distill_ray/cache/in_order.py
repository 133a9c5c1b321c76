"""Work on several threads, whose results come in order: storage answers many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from distill_ray.cache.store import READERS

A = TypeVar("A")
B = TypeVar("B")

AHEAD: Final = 4 * READERS


def in_order(
    work: Callable[[A], B], items: Iterable[A], threads: int = READERS, ahead: int = AHEAD
) -> Iterator[B]:
    """Do work on several threads, at most so many items ahead; give the results in order."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
