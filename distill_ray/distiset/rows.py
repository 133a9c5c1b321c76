"""Rows in their order, each in some part: which parts to read for which rows, and when.

A run of rows that continue each other in one part is read by itself, so walking through a leaf holds one part
at a time; where rows of several parts alternate, as several replicas leave them, these parts together, as
far as memory allows. Rows in another order (shuffled, or of a resumed run) are gathered: as many at once as
memory allows, each part being read once for all of these.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain
from typing import Final

import pyarrow as pa

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

    def tables(self, rows: Sequence[int], at_once: int | None = None) -> Iterator[pa.Table]:
        """Give rows by their numbers, in the order asked for, as consecutive tables.

        Args:
            rows: numbers from 0 up to the length.
            at_once: rows that may be gathered from several parts; by default as many as memory allows.
        """
        in_order = isinstance(rows, range) and rows.step == 1
        passed = rows[0] if rows else 0
        for window in self._windows(rows, at_once or self._gathered_at_once()):
            if len(window) == 1:
                yield self._read(window[0].part).slice(window[0].first_row, window[0].rows)
            else:
                yield from self._gather(window)
            passed += sum(run.rows for run in window)
            for part in {run.part for run in window if in_order}:
                if self._ends[part] <= passed:
                    self._read.spend(part)

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

    def _gather(self, window: Sequence[Segment]) -> Iterator[pa.Table]:
        """Read each part once, then put its rows to their places."""
        by_part: dict[int, list[tuple[int, Segment]]] = {}
        place = 0
        for run in window:
            by_part.setdefault(run.part, []).append((place, run))
            place += run.rows
        tables, order, taken = [], array("q", bytes(8 * place)), 0
        for part in sorted(by_part, key=lambda part: part not in self._read):
            numbers = array("q")
            for place, run in by_part[part]:
                numbers.extend(range(run.first_row, run.first_row + run.rows))
                order[place : place + run.rows] = array("q", range(taken, taken + run.rows))
                taken += run.rows
            tables.append(self._read(part).take(_to_arrow(numbers)))
        joined = concat_tables(tables)
        for start in range(0, taken, MAX_GATHERED_ROWS):
            yield joined.take(_to_arrow(order[start : start + MAX_GATHERED_ROWS]))


def _to_arrow(numbers: array[int]) -> pa.Array:
    # From its buffer: `pa.array` of a list would import pandas where it is installed.
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])
