"""Reads what the scheduler needs of earlier runs: complete outputs, part by part, and units by their keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import StoredRows, StoredUnits
from distill_ray.engine.actions import FindParts, ReadDigests
from distill_ray.engine.messages import DigestsRead, Failure, PartsFound
from distill_ray.errors import CorruptObjectError
from distill_ray.plan import StepPlan

_Pool: TypeAlias = tuple[FunctionId, str, int | None, bool]

PARTS_AHEAD = 2
"""Parts whose footers are on their way while the one before is used: a bucket answers in tens of ms."""


def read_stored_rows(store: CacheStore, manifest: Manifest, pool: ThreadPoolExecutor) -> Iterator[StoredRows]:
    """Give an output's segments in order; a part's digests are held from its first segment to its last.

    Raises:
        CorruptObjectError: a part is gone or damaged; names it, and it was removed.
        StorageError: it cannot be read.
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


def find_parts(store: CacheStore, function: FunctionId, begin: str, lost: FindParts) -> PartsFound:
    """Find a lost replica's parts, whose names begin so; what goes wrong comes back as text."""
    try:
        parts = [part for part in store.parts(function) if part.name.startswith(begin)]
        return PartsFound(lost.step, lost.replica, tuple(store.read_indexes(function, parts)))
    except Exception as error:
        message = f"the parts of a replica that died could not be read: {type(error).__name__}: {error}"
        return PartsFound(lost.step, lost.replica, failure=Failure(lost.step, message))


def read_digests(store: CacheStore, function: FunctionId, asked: ReadDigests) -> DigestsRead:
    """Read the digests of a part's rows; what goes wrong comes back as text."""
    try:
        digests = _digests_of(store, function, asked.part)
    except Exception as error:
        message = f"its input could not be read: {type(error).__name__}: {error}"
        failure = Failure(asked.step, message, damaged=isinstance(error, CorruptObjectError))
        return DigestsRead(asked.step, asked.part.name, failure=failure)
    return DigestsRead(asked.step, asked.part.name, digests)


def stored_units(steps: Mapping[str, StepPlan]) -> dict[str, StoredUnits]:
    """What is stored, by step. Equal steps are not handed out the same: see `StepPlan.family`.

    Also where nothing was left, since other runs may be about to store some. A forced step shares with forced
    ones only.
    """
    indexes: dict[_Pool, list[tuple[PartEntry, UnitIndex]]] = {}
    taken: dict[_Pool, list[Manifest]] = {}
    for step in steps.values():
        taken.setdefault(_pool_of(step), []).extend(step.taken)
        indexes.setdefault(_pool_of(step), list(step.indexes))
    pools = {pool: StoredUnits(found, taken[pool], pool[2]) for pool, found in indexes.items()}
    return {name: pools[_pool_of(step)] for name, step in steps.items()}


def _pool_of(step: StepPlan) -> _Pool:
    return step.function, step.family, step.output_limit, step.decision == "forced"


def _digests(store: CacheStore, manifest: Manifest, number: int) -> bytes:
    return _digests_of(store, manifest.function, manifest.parts[number])


def _digests_of(store: CacheStore, function: FunctionId, part: PartEntry) -> bytes:
    index = store.read_index(function, part)
    if index is None:
        # Reading it whole says what is wrong, and removes it: the run is planned anew without it.
        index = store.read_part(function, part.name)[1]
    return index.digests
