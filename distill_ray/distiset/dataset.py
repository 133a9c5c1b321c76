"""`Dataset`: the rows of one split, read when they are asked for."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, overload

from distill_ray.cache.manifest import Manifest, Segment
from distill_ray.cache.rows import decode_rows
from distill_ray.cache.store import CacheStore
from distill_ray.distiset.parts import CachedParts, HeldParts
from distill_ray.distiset.rows import RowsInParts
from distill_ray.types import Row

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_DECODED_AT_ONCE: Final = 1_000


class Dataset:
    """Rows as the last step gave them: exactly, in order, and read only when they are asked for.

    Making one reads nothing. Iterating holds one part of the cache at a time, or several whose rows
    alternate.

    - ``dataset[3]``, ``dataset[-1]``: a row, a dict; reads the part that it lies in
    - ``dataset[10:20]``, ``dataset[::2]``: a `Dataset` of these rows, which are not read yet
    - ``dataset["column"]``: a list of the column's values, with None where a row has no such key
    """

    def __init__(
        self, stored: RowsInParts, rows: Sequence[int] | None = None, hidden: Iterable[str] = ()
    ) -> None:
        """Give out stored rows.

        Args:
            stored: where they lie.
            rows: the numbers of the wanted ones, in order; by default all.
            hidden: columns that are left out.
        """
        self._stored = stored
        self._rows: Sequence[int] = range(len(stored)) if rows is None else rows
        self._hidden = frozenset(hidden)

    @classmethod
    def from_cache(
        cls, store: CacheStore, manifest: Manifest, leaf: str, hidden: Iterable[str] = ()
    ) -> Dataset:
        """Give out a complete output of the cache; ``leaf`` names it in errors."""
        return cls(RowsInParts(CachedParts(store, manifest, leaf), manifest.segments), hidden=hidden)

    @classmethod
    def from_tables(cls, tables: Sequence[pa.Table], names: Sequence[str] | None = None) -> Dataset:
        """Give out rows that are in memory, as `distill_ray.cache.rows.encode_rows` makes them.

        Args:
            tables: the rows, in order.
            names: the columns; by default those of the tables.
        """
        segments = [Segment(number, 0, table.num_rows) for number, table in enumerate(tables)]
        return cls(RowsInParts(HeldParts(tuple(tables)), segments, names))

    @property
    def column_names(self) -> list[str]:
        """The keys of the rows, in the order of first appearance; a slice has those of the whole."""
        return [name for name in self._stored.column_names if name not in self._hidden]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        for table in self.tables():
            for start in range(0, table.num_rows, _DECODED_AT_ONCE):
                yield from decode_rows(table.slice(start, _DECODED_AT_ONCE))

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> Dataset: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> Row | Dataset | list[Any]:
        if isinstance(key, str):
            return self._column(key)
        if isinstance(key, slice):
            return self._with(self._rows[key])
        return next(iter(self.select([operator.index(key)])))

    def __repr__(self) -> str:
        return f"Dataset(rows={len(self)})"

    def select(self, indices: Iterable[int]) -> Dataset:
        """Give a data set of the rows at these positions, in this order; nothing is read.

        Raises:
            IndexError: a position is out of range.
        """
        try:
            return self._with(array("q", (self._rows[index] for index in indices)))
        except IndexError as error:
            raise IndexError(f"A row's position is out of range: there are {len(self)} rows.") from error

    def tables(self) -> Iterator[pa.Table]:
        """Give the rows as consecutive Arrow tables, as `distill_ray.cache.rows` has them, one at a time."""
        return map(self._shown, self._stored.tables(self._rows))

    def all_tables(self) -> list[pa.Table]:
        """Give what `tables` gives, all in memory: each part is read once, several at a time."""
        return list(map(self._shown, self._stored.all_tables(self._rows)))

    def to_list(self) -> list[Row]:
        """All rows."""
        return [row for table in self.all_tables() for row in decode_rows(table)]

    def to_dict(self) -> dict[str, list[Any]]:
        """All rows by column: ``{column: values}``, with None where a row has no such key."""
        rows = self.to_list()
        return {name: [row.get(name) for row in rows] for name in self.column_names}

    def to_arrow(self) -> pa.Table:
        """All rows in one Arrow table; `distill_ray.distiset.export` has the rules for its types."""
        from distill_ray.distiset.export import to_arrow

        return to_arrow([self])[0]

    def to_pandas(self) -> pd.DataFrame:
        """All rows in a pandas data frame, made from what `to_arrow` gives.

        Whole numbers among which some are missing have pandas' own ``Int64`` type, which keeps them exact.

        Raises:
            ImportError: pandas is not installed: ``pip install 'distill_ray[pandas]'``.
        """
        from distill_ray.distiset.export import to_pandas

        return to_pandas(self)

    def in_memory(self) -> Dataset:
        """Read all rows, so that nothing of where they came from is needed any more."""
        return Dataset.from_tables(self.all_tables(), self.column_names)

    def uniform_schema(self) -> pa.Schema:
        """The one schema that all rows fit into exactly: see `distill_ray.distiset.columns`."""
        from distill_ray.distiset.columns import uniform_schema

        return uniform_schema(self._stored.schemas(), self.column_names, self._stored.holding_none)

    def _with(self, rows: Sequence[int]) -> Dataset:
        return Dataset(self._stored, rows, self._hidden)

    def _shown(self, table: pa.Table) -> pa.Table:
        hidden = self._hidden.intersection(table.column_names)
        return table.select([n for n in table.column_names if n not in hidden]) if hidden else table

    def _column(self, name: str) -> list[Any]:
        if name not in self.column_names:
            raise KeyError(
                f"There is no column '{name}': there are {', '.join(self.column_names) or 'none'}."
            )
        values: list[Any] = []
        for table in self.tables():
            if name in table.column_names:
                values += [row.get(name) for row in decode_rows(table.select([name]))]
            else:
                values += [None] * table.num_rows
        return values
