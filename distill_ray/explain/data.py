"""Compares the rows that a source has at hand with those that it gave before, by their digests.

Of what is stored only footers are read, and for the names of the changed columns a few parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from distill_ray.cache.manifest import Manifest
from distill_ray.cache.rows import row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.units import column_digests
from distill_ray.errors import CorruptObjectError
from distill_ray.explain.explanation import DataChange
from distill_ray.explain.row_changes import row_changes
from distill_ray.explain.stored import RowReader, parts_of, stored_digests
from distill_ray.steps.base import BaseStep
from distill_ray.steps.loaders.dicts import LoadDataFromDicts
from distill_ray.steps.loaders.file_system import LoadDataFromFileSystem
from distill_ray.steps.mappings import to_pipeline_names
from distill_ray.types import Row

FILE_BYTES: Final = 256 * 1024 * 1024
"""Bytes of files that are read to compare their rows."""

LOOKED_AT: Final = 20
"""Changed rows of which both versions are read, to say which columns changed."""

PARTS_LOOKED_AT: Final = 4
"""Parts that are read for that."""


@dataclass(frozen=True)
class SourceRows:
    """The rows of a loader, which can be had without running the pipeline."""

    step: LoadDataFromDicts | LoadDataFromFileSystem

    def __iter__(self) -> Iterator[Row]:
        for rows, _ in self.step.process():
            yield from to_pipeline_names(rows, {}, self.step.output_mappings)

    def digests(self, columns: Sequence[str] | None = None) -> bytes:
        """16 bytes for each row, in their order: of all columns, or of some."""
        found = bytearray()
        rows = iter(self)
        while batch := list(islice(rows, 10_000)):
            found += row_digests(batch) if columns is None else column_digests(batch, columns)
        return bytes(found)

    def at(self, numbers: set[int]) -> dict[int, Row]:
        """The rows of these numbers."""
        last = max(numbers, default=-1)
        return {number: row for number, row in enumerate(islice(self, last + 1)) if number in numbers}


def source_rows(step: BaseStep) -> tuple[SourceRows | None, str]:
    """The rows of a source where they are in memory, or in files that are quickly read; else None and why."""
    if isinstance(step, LoadDataFromDicts):
        return SourceRows(step), ""
    if not isinstance(step, LoadDataFromFileSystem):
        return None, "what it gives is known only when it runs"
    sizes = [file.get("size") for file in step.signed_state().get("files", [])]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes) or sum(known) > FILE_BYTES:
        return None, f"not compared: of files only {FILE_BYTES // 1024**2} MiB are read for this"
    return SourceRows(step), ""


def compare_data(store: CacheStore, before: Manifest, now: SourceRows) -> DataChange | None:
    """How the rows at hand differ from a stored output; None where its footers are gone."""
    digests = stored_digests(store, before)
    if digests is None:
        return None
    rows = row_changes(digests, now.digests())
    pairs = dict(rows.changed[:LOOKED_AT])
    old = _rows_at(store, before, set(pairs))
    new = now.at({pairs[number] for number in old})
    columns: Counter[str] = Counter()
    for number, row in old.items():
        columns.update(_changed_columns(row, new[pairs[number]]))
    return DataChange(rows, looked_at=len(old), columns=dict(columns.most_common()))


def _rows_at(store: CacheStore, manifest: Manifest, numbers: set[int]) -> dict[int, Row]:
    """The stored rows of these numbers, of a few parts at most; those that cannot be read are left out."""
    reader = RowReader(store)
    parts = parts_of(manifest, sorted(numbers))
    looked_at = list(dict.fromkeys(parts.values()))[:PARTS_LOOKED_AT]
    found: dict[int, Row] = {}
    for number, part in parts.items():
        if part in looked_at:
            with suppress(CorruptObjectError):
                (found[number],) = reader.of_output(manifest, range(number, number + 1))
    return found


def _changed_columns(old: Row, new: Row) -> list[str]:
    names = dict.fromkeys([*old, *new])
    return [name for name in names if _column(old, name) != _column(new, name)]


def _column(row: Row, name: str) -> bytes:
    return row_digests([{name: row[name]} if name in row else {}])
