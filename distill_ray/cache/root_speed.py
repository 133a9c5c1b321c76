"""How a cache root answers this process: how long a small object takes, how fast a large one travels."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median

from distill_ray.cache import paths
from distill_ray.cache.exclusive import creates_exclusively
from distill_ray.errors import StorageError
from distill_ray.storage import Storage

SMALL_TRIES = 5

LARGE_BYTES = 8 << 20
"""The size of a usual part."""


@dataclass(frozen=True)
class RootSpeed:
    """What was measured.

    Attributes:
        write_ms: milliseconds that writing a small object takes: the median.
        read_ms: likewise for reading it.
        write_bytes: bytes a second, of one large object that is written.
        read_bytes: likewise of reading it.
        exclusive: whether an object can be created only where there is none: what leases need.
    """

    write_ms: float
    read_ms: float
    write_bytes: float
    read_bytes: float
    exclusive: bool


def measure_root(storage: Storage) -> RootSpeed:
    """Write, read and remove a few objects.

    Raises:
        StorageError: one of that is not possible, or what was read is not what was written.
    """
    stem = secrets.token_hex(16)
    small = [paths.probe(f"{stem}.{number}") for number in range(SMALL_TRIES)]
    large, content = paths.probe(f"{stem}.large"), secrets.token_bytes(LARGE_BYTES)
    with _removed(storage, [*small, large]):
        writes = [_seconds(storage.publish, path, path.encode()) for path in small]
        reads = [_seconds(_check, storage, path, path.encode()) for path in small]
        written = _seconds(storage.publish, large, content)
        read = _seconds(_check, storage, large, content)
    return RootSpeed(
        write_ms=1000 * median(writes),
        read_ms=1000 * median(reads),
        write_bytes=LARGE_BYTES / written,
        read_bytes=LARGE_BYTES / read,
        exclusive=creates_exclusively(storage),
    )


@contextmanager
def _removed(storage: Storage, objects: list[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(StorageError):  # what went wrong first is what there is to say
            storage.delete(objects)
        raise
    storage.delete(objects)


def _check(storage: Storage, path: str, content: bytes) -> None:
    try:
        same = storage.read(path) == content
    except FileNotFoundError:
        same = False
    if not same:
        raise StorageError(f"{storage.url}/{path} was written, and reads as something else.")


def _seconds(act: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    act(*arguments)
    return max(time.perf_counter() - began, 1e-9)
