"""Works out the keys of rows, away from the driver: it never touches rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import decode_rows
from distill_ray.cache.store import CacheStore
from distill_ray.cache.units import column_digests
from distill_ray.cache.writer import Block
from distill_ray.engine.actions import ReadKeys
from distill_ray.engine.messages import Failure, KeysRead
from distill_ray.errors import CorruptObjectError


@dataclass(frozen=True)
class PartRows:
    """Rows of a part, from one on."""

    store: CacheStore
    function: FunctionId
    name: str
    first_row: int

    def table(self) -> pa.Table:
        """Read them."""
        return self.store.read_part(self.function, self.name)[0].slice(self.first_row)


def read_keys(asked: ReadKeys, rows: Block | PartRows) -> KeysRead:
    """Give the digests that were asked for; what goes wrong comes back as text."""
    try:
        keys = table_digests(rows.table() if isinstance(rows, PartRows) else rows.table, asked.columns)
    except Exception as error:
        message = f"its input could not be read: {type(error).__name__}: {error}"
        failure = Failure(asked.step, message, damaged=isinstance(error, CorruptObjectError))
        return KeysRead(asked.step, asked.block, asked.columns, failure=failure)
    return KeysRead(asked.step, asked.block, asked.columns, keys)


def table_digests(table: pa.Table, columns: Sequence[str]) -> bytes:
    """Digests of what a table's rows hold in some columns, 16 bytes a row."""
    present = [name for name in columns if name in table.column_names]
    if not present:
        return column_digests([{}] * table.num_rows, ())
    return column_digests(decode_rows(table.select(present)), columns)
