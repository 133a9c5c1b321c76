"""Units: the keys they are found by, and the look-up of those that earlier runs have stored."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.part import KEY_SIZE, UnitIndex
from distill_ray.cache.rows import DIGEST_SIZE


def batch_key(digests: Sequence[bytes]) -> bytes:
    """Key of a batch: for each predecessor the digests of its rows, 16 bytes a row."""
    state = hashlib.sha256(b"batch")
    for rows in digests:
        state.update(len(rows).to_bytes(8, "big"))
        state.update(rows)
    return state.digest()[:KEY_SIZE]


def offset_key(offset: int) -> bytes:
    """Key of what a generator yields from row number ``offset`` on."""
    return hashlib.sha256(b"offset" + offset.to_bytes(8, "big")).digest()[:KEY_SIZE]


def end_key(offset: int) -> bytes:
    """Key that says: this generator ends before row number ``offset``."""
    return hashlib.sha256(b"end" + offset.to_bytes(8, "big")).digest()[:KEY_SIZE]


@dataclass(frozen=True)
class StoredRows:
    """Rows that follow each other in a part: those of a unit, or a segment of an output.

    Attributes:
        part: the part.
        first_row: first row in the part.
        rows: number of rows; may be 0.
        digests: 16 bytes for each row; a view where they were cut off those of the whole part.
    """

    part: PartEntry
    first_row: int
    rows: int
    digests: bytes | memoryview


def unreplaced(parts: Iterable[tuple[PartEntry, UnitIndex]]) -> list[tuple[PartEntry, UnitIndex]]:
    """Leave out parts whose rows stand in a merged part too: after a crash they may still be there."""
    parts = list(parts)
    replaced = {name for _, index in parts for name in index.replaces}
    return [(part, index) for part, index in parts if part.name not in replaced]


class StoredUnits:
    """What earlier runs left of one step function, by unit key.

    Each stored unit is handed out once: the k-th equal key takes the k-th stored output, the newest
    run's first.

    Args:
        parts: the parts and their indexes.
        taken: outputs whose rows have been handed out already.
    """

    def __init__(
        self, parts: Iterable[tuple[PartEntry, UnitIndex]] = (), taken: Iterable[Manifest] = ()
    ) -> None:
        self._by_key: dict[bytes, deque[StoredRows]] = {}
        self.rows = 0
        self.units = 0
        newest_first = sorted(unreplaced(parts), key=lambda p: p[0].name)
        newest_first.sort(key=lambda p: p[1].run, reverse=True)
        gone = _rows_of(taken)
        for part, index in newest_first:
            self._add(part, index, gone.get(part.name, ()))

    def _add(self, part: PartEntry, index: UnitIndex, gone: Sequence[range]) -> None:
        for key, first_row, rows in index.units:
            if rows and _is_in(first_row, gone):
                continue
            digests = index.digests[first_row * DIGEST_SIZE : (first_row + rows) * DIGEST_SIZE]
            self._by_key.setdefault(key, deque()).append(StoredRows(part, first_row, rows, digests))
            self.rows += rows
            self.units += 1

    def take(self, key: bytes) -> StoredRows | None:
        """Hand out the next stored unit of this key, if there is one left."""
        found = self._by_key.get(key)
        return found.popleft() if found else None


def _rows_of(outputs: Iterable[Manifest]) -> dict[str, list[range]]:
    """The rows of each part that outputs are made of, sorted."""
    found: dict[str, list[range]] = {}
    for output in outputs:
        for each in output.segments:
            rows = range(each.first_row, each.first_row + each.rows)
            found.setdefault(output.parts[each.part].name, []).append(rows)
    return {name: sorted(ranges, key=_start_of) for name, ranges in found.items()}


def _start_of(rows: range) -> int:
    return rows.start


def _is_in(row: int, ranges: Sequence[range]) -> bool:
    place = bisect_right(ranges, row, key=_start_of)
    return place > 0 and row in ranges[place - 1]
