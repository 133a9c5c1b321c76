"""Stored outputs row by row: their digests from footers, and rows by their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import pyarrow as pa

from distill_ray.cache.manifest import Manifest
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import DIGEST_SIZE, decode_rows
from distill_ray.cache.store import CacheStore
from distill_ray.types import Row


def stored_digests(store: CacheStore, manifest: Manifest) -> bytes | None:
    """The digests of an output's rows, 16 bytes a row; None where the footer of a part cannot be read."""
    indexes = store.read_indexes(manifest.function, manifest.parts)
    digests = {part.name: index.digests for part, index in indexes}
    found = bytearray()
    for segment in manifest.segments:
        of_part = digests.get(manifest.parts[segment.part].name)
        if of_part is None:
            return None
        found += of_part[segment.first_row * DIGEST_SIZE : (segment.first_row + segment.rows) * DIGEST_SIZE]
    return bytes(found)


class RowReader:
    """Reads rows from parts, and keeps the parts that were read last."""

    def __init__(self, store: CacheStore) -> None:
        self._store = store
        self._table = lru_cache(maxsize=4)(self._read)

    def _read(self, function: FunctionId, name: str) -> pa.Table:
        return self._store.read_part(function, name)[0]

    def of_part(self, function: FunctionId, name: str, first_row: int, rows: int) -> list[Row]:
        """Rows of a part.

        Raises:
            CorruptObjectError: it is gone, or not what was written.
        """
        return decode_rows(self._table(function, name).slice(first_row, rows))

    def of_output(self, manifest: Manifest, numbers: range) -> list[Row]:
        """Rows of an output, by their numbers.

        Raises:
            CorruptObjectError: a part is gone, or not what was written.
        """
        found: list[Row] = []
        for name, first_row, rows in _places(manifest, numbers):
            found += self.of_part(manifest.function, name, first_row, rows)
        return found


def parts_of(manifest: Manifest, numbers: Iterable[int]) -> dict[int, str]:
    """For each of these rows of an output the name of the part that it stands in."""
    return {number: next(_places(manifest, range(number, number + 1)))[0] for number in numbers}


def _places(manifest: Manifest, numbers: range) -> Iterator[tuple[str, int, int]]:
    start = 0
    for segment in manifest.segments:
        first, end = max(numbers.start, start), min(numbers.stop, start + segment.rows)
        if first < end:
            yield manifest.parts[segment.part].name, segment.first_row + first - start, end - first
        start += segment.rows
