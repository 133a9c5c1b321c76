"""The rows that a call works on, decoded from the tables that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from distill_ray.cache.rows import decode_rows
from distill_ray.engine.messages import Range
from distill_ray.types import Batch, Row


@dataclass(frozen=True)
class Inputs:
    """The rows that a call works on.

    Attributes:
        ranges: for each predecessor where they are.
        tables: what the ranges are of.
    """

    ranges: Sequence[Sequence[Range]]
    tables: Sequence[pa.Table]

    @cached_property
    def rows(self) -> list[Batch]:
        """The rows of each predecessor."""
        return [_rows(ranges, self.tables) for ranges in self.ranges]

    def afresh(self, cuts: Sequence[tuple[int, int]]) -> list[Batch]:
        """Read some of them once more, for each predecessor from a row to another."""
        pairs = zip(self.ranges, cuts, strict=True)
        return [_rows(_cut(ranges, start, end), self.tables) for ranges, (start, end) in pairs]


def _rows(ranges: Iterable[Range], tables: Sequence[pa.Table]) -> list[Row]:
    rows: list[Row] = []
    for each in ranges:
        rows += decode_rows(tables[each.source].slice(each.start, each.rows))
    return rows


def _cut(ranges: Sequence[Range], start: int, end: int) -> Iterator[Range]:
    """Where some of the rows of ranges are."""
    first = 0
    for each in ranges:
        low, high = max(start, first), min(end, first + each.rows)
        if low < high:
            yield Range(each.source, each.start + low - first, high - low)
        first += each.rows
