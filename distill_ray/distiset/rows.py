"""Rows in their order, each in some part: which parts to read for which rows, and when.

A run of rows that continue each other in one part is read by itself, so walking through a leaf holds one part
at a time; where rows of several parts alternate, as several replicas leave them, these parts together, as
far as memory allows. Rows in another order (shuffled, or of a resumed run) are gathered: as many at once as
memory allows, each part being read once for all of these. Who wants all rows in memory gets them by reading
each part once, several at a time.

Rows are copied only where they must be: out of a part that holds far more rows than are wanted, so that it
can be let go, and where the runs are so short that a table for each would cost more.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain
from typing import Final

import pyarrow as pa

from distill_ray.cache.in_order import in_order
from distill_ray.cache.kept_parts import KeptParts
from distill_ray.cache.manifest import Segment
from distill_ray.cache.rows import concat_tables, decode_rows, read_mark
from distill_ray.cache.store import READERS
from distill_ray.distiset.columns import names_of
from distill_ray.distiset.parts import Parts

MAX_GATHERED_ROWS: Final = 32_768
"""Rows that are gathered from several parts at once."""

_MAX_GATHERED_BYTES: Final = 64 << 20  # as they are stored
_LONG: Final = 8  # a run of at least an eighth of what may be gathered is read by itself
_MIN_MEAN_RUN: Final = 64  # rows; shorter runs are copied into one table
_READ_AT_ONCE: Final = 4  # parts: of local ones decoding takes the time, two cores' worth of it


class RowsInParts:
    """Rows that lie in parts; a data set and all its slices share one.

    Args:
        parts: what the rows are read from.
        segments: the rows, in order.
        names: the keys of all rows; found out by need where they are not known.
    """

    def __init__(self, parts: Parts, segments: Sequence[Segment], names: Sequence[str] | None = None) -> None:
        self._parts = parts
        self._segments = tuple(segments)
        self._starts = [0, *accumulate(segment.rows for segment in self._segments)]
        self._read: KeptParts[int, pa.Table] = KeptParts(parts.read, lambda table: table.nbytes)
        ends = self._starts[1:]
        self._ends = {segment.part: end for segment, end in zip(self._segments, ends, strict=True)}
        self._names = None if names is None else list(names)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def column_names(self) -> list[str]:
        """The keys of all rows, in the order of first appearance; reads the parts' footers, once."""
        if self._names is None:
            used = Counter[int]()
            for segment in self._segments:
                used[segment.part] += segment.rows
            names: dict[str, None] = {}
            for part, (schema, rows) in zip(used, self._footers(), strict=True):
                # The rows of other outputs in a part may have keys that no row here has.
                keys = self._keys(part) if used[part] < rows else names_of(schema)
                names.update(dict.fromkeys(keys))
            self._names = list(names)
        return list(self._names)

    def schemas(self) -> list[pa.Schema]:
        """The columns of each part, as they are stored."""
        return [schema for schema, _ in self._footers()]

    def holding_none(self, names: Sequence[str]) -> set[str]:
        """Tell which of the columns have None in some row, and not only no such key; reads the parts."""
        found: set[str] = set()
        for part in self._part_numbers():
            table = self._read(part)
            present = [table.schema.field(name) for name in names if name in table.column_names]
            found.update(
                field.name
                for field in present
                if "null" not in read_mark(field) and table.column(field.name).null_count
            )
        return found

    def tables(self, rows: Sequence[int]) -> Iterator[pa.Table]:
        """Give rows by their numbers, in the order asked for, as consecutive tables that come one at a time.

        Args:
            rows: numbers from 0 up to the length.
        """
        forward = isinstance(rows, range) and rows.step == 1
        passed = rows[0] if rows else 0
        at_once = self._gathered_at_once()
        for window in self._windows(rows, at_once):
            if len(window) == 1:
                yield self._read(window[0].part).slice(window[0].first_row, window[0].rows)
            else:
                wanted = dict.fromkeys(run.part for run in window)
                kept_first = sorted(wanted, key=lambda part: part not in self._read)
                yield from _arrange(window, ((part, self._read(part)) for part in kept_first), at_once)
            passed += sum(run.rows for run in window)
            for part in {run.part for run in window if forward}:
                if self._ends[part] <= passed:
                    self._read.spend(part)

    def all_tables(self, rows: Sequence[int]) -> list[pa.Table]:
        """Give rows by their numbers, in the order asked for, as consecutive tables, all in memory.

        Args:
            rows: numbers from 0 up to the length.
        """
        runs = list(self._runs(rows))
        wanted = list(dict.fromkeys(run.part for run in runs))
        read = in_order(lambda part: (part, self._parts.read(part)), wanted, _READ_AT_ONCE, _READ_AT_ONCE)
        return list(_arrange(runs, read, self._gathered_at_once()))

    def _part_numbers(self) -> list[int]:
        return list(dict.fromkeys(segment.part for segment in self._segments))

    def _footers(self) -> list[tuple[pa.Schema, int]]:
        numbers = self._part_numbers()
        with ThreadPoolExecutor(min(READERS, max(1, len(numbers)))) as pool:
            return list(pool.map(self._parts.schema, numbers))

    def _keys(self, part: int) -> list[str]:
        """The keys of those rows of a part that are ours."""
        table = self._read(part)
        ours = (segment for segment in self._segments if segment.part == part)
        decoded = (decode_rows(table.slice(segment.first_row, segment.rows)) for segment in ours)
        present = dict.fromkeys(chain.from_iterable(chain.from_iterable(decoded)))
        return [name for name in table.column_names if name in present]

    def _gathered_at_once(self) -> int:
        mean = self._parts.size / max(1, len(self))
        return max(1, min(MAX_GATHERED_ROWS, int(_MAX_GATHERED_BYTES / max(1.0, mean))))

    def _windows(self, rows: Sequence[int], limit: int) -> Iterator[list[Segment]]:
        """The runs that are read together: a long one by itself, of short ones up to ``limit`` rows."""
        window: list[Segment] = []
        gathered = 0
        for run in self._runs(rows):
            long = run.rows * _LONG >= limit
            if window and (long or gathered + run.rows > limit):
                yield window
                window, gathered = [], 0
            if long:
                yield [run]
            else:
                window.append(run)
                gathered += run.rows
        if window:
            yield window

    def _runs(self, rows: Sequence[int]) -> Iterator[Segment]:
        if isinstance(rows, range) and rows.step == 1:
            yield from self._consecutive(rows.start, rows.stop)
        else:
            for row in rows:
                yield from self._consecutive(row, row + 1)

    def _consecutive(self, start: int, stop: int) -> Iterator[Segment]:
        position = bisect_right(self._starts, start) - 1
        while start < stop:
            segment, first = self._segments[position], self._starts[position]
            count = min(stop, first + segment.rows) - start
            if count > 0:
                yield Segment(segment.part, segment.first_row + start - first, count)
            start += max(0, count)
            position += 1


def _arrange(
    runs: Sequence[Segment], read: Iterable[tuple[int, pa.Table]], at_once: int
) -> Iterator[pa.Table]:
    """Put runs of rows into their order.

    Args:
        runs: which rows, in order.
        read: every part they lie in, once, by its number.
        at_once: rows that may be copied together.
    """
    rows = sum(run.rows for run in runs)
    firsts = array("q", (run.first_row for run in runs))
    if rows >= _MIN_MEAN_RUN * len(runs):
        tables = _without_others(runs, firsts, read)
        for first, run in zip(firsts, runs, strict=True):
            yield tables[run.part].slice(first, run.rows)
    elif rows <= at_once:
        yield _copied(runs, firsts, read)
    else:
        # Not all of them from all parts: Arrow joins what it copies from, and no column has room for 2 GiB.
        tables = _without_others(runs, firsts, read)
        last = {run.part: number for number, run in enumerate(runs)}
        for start, end in _groups(runs, at_once):
            group = runs[start:end]
            wanted = dict.fromkeys(run.part for run in group)
            yield _copied(group, firsts[start:end], ((part, tables[part]) for part in wanted))
            for part in wanted:
                if last[part] < end:
                    del tables[part]


def _without_others(
    runs: Sequence[Segment], firsts: array[int], read: Iterable[tuple[int, pa.Table]]
) -> dict[int, pa.Table]:
    """Give parts by their numbers, without the other rows where these are most; moves ``firsts`` likewise."""
    tables: dict[int, pa.Table] = {}
    by_part = _by_part(runs)
    for part, table in read:
        mine = by_part[part]
        if 2 * sum(runs[number].rows for number in mine) >= table.num_rows:
            tables[part] = table
            continue
        tables[part] = table.take(_to_arrow((firsts[number], runs[number].rows) for number in mine))
        first = 0
        for number in mine:
            firsts[number] = first
            first += runs[number].rows
    return tables


def _groups(runs: Sequence[Segment], at_once: int) -> Iterator[tuple[int, int]]:
    """Divide runs into groups of so many rows, each as the first one's number and the end."""
    start = rows = 0
    for number, run in enumerate(runs):
        if number > start and rows + run.rows > at_once:
            yield start, number
            start, rows = number, 0
        rows += run.rows
    yield start, len(runs)


def _copied(runs: Sequence[Segment], firsts: Sequence[int], read: Iterable[tuple[int, pa.Table]]) -> pa.Table:
    """Copy runs of rows, each from its first row on, into one table."""
    by_part = _by_part(runs)
    places = array("q", bytes(8 * len(runs)))
    taken: list[pa.Table] = []
    rows = 0
    for part, table in read:
        mine = by_part[part]
        taken.append(table.take(_to_arrow((firsts[number], runs[number].rows) for number in mine)))
        for number in mine:
            places[number] = rows
            rows += runs[number].rows
    if len(taken) == 1:
        return taken[0]
    return concat_tables(taken).take(_to_arrow((p, run.rows) for p, run in zip(places, runs, strict=True)))


def _by_part(runs: Sequence[Segment]) -> dict[int, list[int]]:
    """The numbers of the runs that lie in each part."""
    by_part: dict[int, list[int]] = {}
    for number, run in enumerate(runs):
        by_part.setdefault(run.part, []).append(number)
    return by_part


def _to_arrow(runs: Iterable[tuple[int, int]]) -> pa.Array:
    """Give the numbers of all rows of runs, each its first row and how many."""
    # From a buffer: `pa.array` of a list would import pandas where it is installed.
    numbers = array("q", chain.from_iterable(range(first, first + rows) for first, rows in runs))
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])
