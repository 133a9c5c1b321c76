"""Units: the keys they are found by, and the look-up of those that earlier runs have stored."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, repeat
from typing import NamedTuple

from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.rows import DIGEST_SIZE, row_digests, split_digests
from distill_ray.cache.unit_index import NO_UNIT, Limits, UnitIndex
from distill_ray.types import Row


def batch_key(digests: Sequence[bytes]) -> bytes:
    """Key of a batch: for each predecessor the digests of its rows, 16 bytes a row."""
    state = hashlib.sha256(b"batch")
    for rows in digests:
        state.update(len(rows).to_bytes(8, "big"))
        state.update(rows)
    return state.digest()[:DIGEST_SIZE]


def offset_key(offset: int) -> bytes:
    """Key of what a generator yields from row number ``offset`` on."""
    return hashlib.sha256(b"offset" + offset.to_bytes(8, "big")).digest()[:DIGEST_SIZE]


def end_key(offset: int) -> bytes:
    """Key that says: this generator ends before row number ``offset``."""
    return hashlib.sha256(b"end" + offset.to_bytes(8, "big")).digest()[:DIGEST_SIZE]


def column_digests(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    """Digest of what each row holds in some of its columns, 16 bytes a row; of all of them: `row_digests`."""
    return row_digests([{name: row[name] for name in columns if name in row} for row in rows])


def row_keys(first: bytes | memoryview, others: Sequence[tuple[bytes, int]] = ()) -> bytes:
    """Keys of rows, 16 bytes each.

    Args:
        first: digests of the first predecessor's rows: of their declared columns, or of the whole rows.
        others: of each further predecessor the digests of its rows, and how many belong to one row.
    """
    if not others:
        return bytes(first)
    return b"".join(
        batch_key(
            [
                bytes(first[row * DIGEST_SIZE : (row + 1) * DIGEST_SIZE]),
                *(rows[row * n * DIGEST_SIZE : (row + 1) * n * DIGEST_SIZE] for rows, n in others),
            ]
        )
        for row in range(len(first) // DIGEST_SIZE)
    )


class StoredRows(NamedTuple):
    """Rows that follow each other in a part: those of a unit, or a segment of an output.

    A tuple, as whatever there may be one of for each of a million rows: it is made several times faster.

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
    """What earlier runs left of one step function, by unit key and, for row-wise steps, by input row.

    Each stored unit is handed out once: the k-th equal key takes the k-th stored output, the newest
    run's first; and of what a step gave once and was put together with several rows, one. A unit of a
    row-wise step takes about 650 bytes of a process's memory, its index counted.

    Args:
        parts: the parts and their indexes.
        taken: outputs whose rows have been handed out already.
        limit: units that do not serve this limit are passed over.
    """

    def __init__(
        self,
        parts: Iterable[tuple[PartEntry, UnitIndex]] = (),
        taken: Iterable[Manifest] = (),
        limit: int | None = None,
    ) -> None:
        self._limit = limit
        self._gone = _rows_of(taken)
        self._parts: list[tuple[PartEntry, UnitIndex]] = []
        self._known: dict[str, UnitIndex] = {}
        self._part, self._first, self._count = array("i"), array("q"), array("q")
        self._by_key, self._by_whole = _Chains(), _Chains()
        self._used = bytearray()
        self._position = array("i")
        self._copied: dict[bytes, bool] = {}
        """Keys of which there are copies, each with whether `_left` knows of its units."""
        self._left: dict[bytes, int] = {}
        """How often each answer of these keys may still be handed out."""
        self._spent: Counter[bytes] = Counter()
        """Answers that stand in outputs whose rows have been handed out."""
        self.add(parts)

    def __len__(self) -> int:
        return len(self._used)

    def add(self, parts: Iterable[tuple[PartEntry, UnitIndex]]) -> None:
        """Take in more parts; what a merged one holds of parts that are known already is passed over."""
        new = [(part, index) for part, index in unreplaced(parts) if part.name not in self._known]
        oldest_first = sorted(sorted(new, key=_name_of, reverse=True), key=_run_of)
        for part, index in oldest_first:
            self._known[part.name] = index
            self._add(part, index)

    def _add(self, part: PartEntry, index: UnitIndex) -> None:
        number, first_unit = len(self._parts), len(self)
        self._parts.append((part, index))
        keys, firsts = split_digests(index.keys), list(accumulate(index.counts, initial=0))
        kept = self._kept(part, index, keys, firsts)
        units = list(range(first_unit, first_unit + len(kept)))  # the same numbers in both chains
        self._part.extend(repeat(number, len(kept)))
        self._first.extend([firsts[position] for position in kept])
        self._count.extend([index.counts[position] for position in kept])
        self._used.extend(bytes(len(kept)))
        self._position.extend(kept)
        self._by_key.put([keys[position] for position in kept], units)
        if index.wholes:
            wholes = split_digests(index.wholes)
            self._by_whole.put([wholes[position] for position in kept], units)
        self._note_copies(index, keys, kept, first_unit)

    def _note_copies(
        self, index: UnitIndex, keys: Sequence[bytes], kept: Sequence[int], first_unit: int
    ) -> None:
        """Let keys be known of which there are copies, and count what is new of them."""
        # Also copies that are handed out already: what they were made from is so too.
        for first, units in index.copied:
            for key in keys[first : first + units]:
                self._copied.setdefault(key, False)
        counted = [u for u, position in enumerate(kept, first_unit) if self._copied.get(keys[position])]
        if counted:
            self._count_answers(counted)

    def _kept(
        self, part: PartEntry, index: UnitIndex, keys: Sequence[bytes], firsts: Sequence[int]
    ) -> list[int]:
        """The positions of a part's units that may be handed out, from the last to the first."""
        # What is put last is found first.
        kept = [p for p in range(len(keys) - 1, -1, -1) if keys[p] != NO_UNIT]
        if gone := self._gone.get(part.name):
            taken = {p for p in kept if index.counts[p] and _is_in(firsts[p], gone)}
            kept = [p for p in kept if p not in taken]
            if index.wholes:
                copied_from = index.copied_from()
                self._spent.update(copied_from[p] or index.answer_name(p, firsts[p]) for p in taken)
        if limits := index.limits:
            kept = [p for p in kept if serves(limits[p], self._limit)]
        known = Counter(key for name in index.replaces if name in self._known for key in self._keys_of(name))
        if known:
            kept = [p for p in kept if not _strike(known, keys[p])]
        return kept

    def _keys_of(self, name: str) -> list[bytes]:
        return split_digests(self._known[name].keys)

    def take(self, key: bytes) -> StoredRows | None:
        """Hand out the next stored unit of this key, if there is one left."""
        return self._take(self._by_key, key)

    def take_whole(self, whole: bytes) -> StoredRows | None:
        """Hand out the next stored unit that was made from this very row, all its columns counted."""
        return self._take(self._by_whole, whole)

    def _take(self, chains: _Chains, key: bytes) -> StoredRows | None:
        while (unit := chains.first_unused(key, self._used)) >= 0:
            self._used[unit] = 1
            if not self._copied or self._is_left(unit):
                part, index = self._parts[self._part[unit]]
                first_row, rows = self._first[unit], self._count[unit]
                digests = index.digests[first_row * DIGEST_SIZE : (first_row + rows) * DIGEST_SIZE]
                return StoredRows(part, first_row, rows, digests)
        return None

    def _is_left(self, unit: int) -> bool:
        """Whether what the step gave for a unit may still be handed out, by this unit or a copy."""
        index, position = self._parts[self._part[unit]][1], self._position[unit]
        key = index.keys[position * DIGEST_SIZE : (position + 1) * DIGEST_SIZE]
        counted = self._copied.get(key)
        if counted is None:
            return True
        if not counted:
            self._copied[key] = True
            self._count_answers(list(self._by_key.units(key)))
        name, _ = self._answer_of(unit)
        self._left[name] -= 1
        return self._left[name] >= 0

    def _count_answers(self, units: Sequence[int]) -> None:
        """Let it be known how many of each answer are there: of copies one, though the original be gone."""
        answers = [self._answer_of(unit) for unit in units]
        made = Counter(name for name, is_copy in answers if not is_copy)
        for name, _ in answers:
            if name not in self._left:
                self._left[name] = max(1, made[name]) - self._spent[name]
            elif made[name]:
                self._left[name] += made[name]
            made[name] = 0

    def _answer_of(self, unit: int) -> tuple[bytes, bool]:
        """The name of what the step gave for a unit, and whether the unit is a copy of it."""
        index, position = self._parts[self._part[unit]][1], self._position[unit]
        copied_from = index.copied_name(position)
        return copied_from or index.answer_name(position, self._first[unit]), bool(copied_from)


class _Chains:
    """For each key the units that have it, the last one put first."""

    def __init__(self) -> None:
        self._heads: dict[bytes, int] = {}
        self._next = array("i")

    def put(self, keys: Sequence[bytes], units: Sequence[int]) -> None:
        """Let units have these keys: the numbers follow each other, and are greater than those before."""
        heads, following = self._heads, self._next
        if units:
            following.extend(repeat(-1, units[0] - len(following)))
        for key, unit in zip(keys, units, strict=True):
            following.append(heads.get(key, -1))
            heads[key] = unit

    def units(self, key: bytes) -> Iterator[int]:
        """The units with this key, but for used ones that were passed over."""
        unit = self._heads.get(key, -1)
        while unit >= 0:
            yield unit
            unit = self._next[unit]

    def first_unused(self, key: bytes, used: bytearray) -> int:
        """The number of the first unit with this key that is not used; -1: there is none."""
        unit = self._heads.get(key, -1)
        if unit < 0 or not used[unit]:
            return unit
        while unit >= 0 and used[unit]:
            unit = self._next[unit]
        self._heads[key] = unit
        return unit


def _strike(known: Counter[bytes], key: bytes) -> bool:
    """Whether a key is among those that are known, which it is once less from then on."""
    if not known[key]:
        return False
    known[key] -= 1
    return True


def serves(limits: Limits, limit: int | None) -> bool:
    """Whether rows that were made under some limit are what they would be under this one."""
    smallest, largest = limits
    if limit is None:
        return largest is None
    return smallest <= limit and (largest is None or limit <= largest)


def _name_of(found: tuple[PartEntry, UnitIndex]) -> str:
    return found[0].name


def _run_of(found: tuple[PartEntry, UnitIndex]) -> str:
    return found[1].run


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
