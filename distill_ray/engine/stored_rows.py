"""Reads what the scheduler needs of a complete output of an earlier run, part by part, a little ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from distill_ray.cache.manifest import Manifest
from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.store import CacheStore
from distill_ray.cache.units import StoredRows

PARTS_AHEAD = 2
"""Parts whose footers are on their way while the one before is used: a bucket answers in tens of ms."""


def read_stored_rows(store: CacheStore, manifest: Manifest, pool: ThreadPoolExecutor) -> Iterator[StoredRows]:
    """Give an output's segments in order; a part's digests are held from its first segment to its last.

    Raises:
        StorageError: a part is gone or damaged; names it and says what to do.
    """
    last_use = {segment.part: position for position, segment in enumerate(manifest.segments)}
    to_read = deque(dict.fromkeys(segment.part for segment in manifest.segments))
    reading: dict[int, Future[bytes]] = {}
    for position, segment in enumerate(manifest.segments):
        while to_read and (segment.part not in reading or len(reading) < PARTS_AHEAD):
            number = to_read.popleft()
            reading[number] = pool.submit(_digests, store, manifest, number)
        digests = memoryview(reading[segment.part].result())
        start, end = segment.first_row, segment.first_row + segment.rows
        yield StoredRows(
            manifest.parts[segment.part],
            segment.first_row,
            segment.rows,
            digests[start * DIGEST_SIZE : end * DIGEST_SIZE],
        )
        if last_use[segment.part] == position:
            del reading[segment.part]


def _digests(store: CacheStore, manifest: Manifest, number: int) -> bytes:
    part = manifest.parts[number]
    index = store.read_index(manifest.function, part)
    if index is None:
        # Reading it whole says what is wrong, and removes it: the next run makes it again.
        index = store.read_part(manifest.function, part.name)[1]
    return index.digests
