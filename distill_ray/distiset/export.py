"""Rows for other libraries: one Arrow table, or one pandas data frame, over all parts.

The type of a column comes from all of its values:

- text, booleans, 64-bit integers and floats have their own types; integers among floats become floats
- lists have the type of their items, dicts become structs with every key that any of them has
- a missing key and None are both NULL, in structs too
- any other column is JSON text, and its field's metadata say so under ``distill_ray.column``: values of
  several kinds, integers beyond 64 bits (or beyond 53 among floats), text with lone surrogates, dicts without
  any key, and dicts that have more than 1,000 different keys
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from distill_ray.cache.rows import decode_rows
from distill_ray.distiset.columns import common_type, is_json, json_field, json_texts

if TYPE_CHECKING:
    import pandas as pd

    from distill_ray.distiset.dataset import Dataset

MAX_KEYS: Final = 1_000
"""Different keys of dicts in a column up to which they become a struct."""

_SCALARS: Final[dict[frozenset[type], pa.DataType]] = {
    frozenset(): pa.null(),
    frozenset({str}): pa.string(),
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
}


def to_arrow(datasets: Sequence[Dataset]) -> list[pa.Table]:
    """Give a table for each data set, all with one schema."""
    tables = [dataset.all_tables() for dataset in datasets]
    names = dict.fromkeys(chain.from_iterable(dataset.column_names for dataset in datasets))
    joined = list(chain.from_iterable(tables))
    rows = sum(table.num_rows for table in joined)
    if names:
        columns = [_column(joined, name) for name in names]
        whole = pa.Table.from_arrays([data for _, data in columns], schema=pa.schema([f for f, _ in columns]))
    else:
        whole = pa.table({"": pa.nulls(rows)}).select([])
    exported, first = [], 0
    for dataset in datasets:
        exported.append(whole.slice(first, len(dataset)))
        first += len(dataset)
    return exported


def to_pandas(dataset: Dataset) -> pd.DataFrame:
    """Give the rows as a pandas data frame."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("`to_pandas` needs pandas: pip install 'distill_ray[pandas]'") from error
    table = to_arrow([dataset])[0]
    frame = table.to_pandas()
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_integer(column.type) and column.null_count:
            frame[name] = column.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame


def natural_type(values: Sequence[Any]) -> pa.DataType | None:
    """Give the Arrow type of JSON-like values by the rules above, or None where there is none."""
    kinds = frozenset(map(type, values)) - {type(None)}
    if kinds == {list}:
        item = natural_type([item for value in values if value is not None for item in value])
        return None if item is None else pa.list_(pa.field("element", item))
    if kinds == {dict}:
        return _struct_type([value for value in values if value is not None])
    return _SCALARS.get(kinds)


def _struct_type(dicts: Sequence[dict[str, Any]]) -> pa.DataType | None:
    keys = dict.fromkeys(chain.from_iterable(dicts))
    if not 0 < len(keys) <= MAX_KEYS:
        return None
    fields = []
    for key in keys:
        kind = natural_type([value[key] for value in dicts if key in value])
        if kind is None:
            return None
        fields.append(pa.field(key, kind))
    return pa.struct(fields)


def _column(tables: Sequence[pa.Table], name: str) -> tuple[pa.Field, Any]:
    """One column over all tables, with its field."""
    fields = [table.schema.field(name) for table in tables if name in table.column_names]
    kind = common_type(fields)
    if kind is not None:
        chunks = [_native(table, name, kind) for table in tables]
        return pa.field(name, kind), pa.chunked_array(chain.from_iterable(c.chunks for c in chunks), kind)
    values = list(chain.from_iterable(_values(table, name) for table in tables))
    natural = natural_type(values)
    if natural is not None:
        try:
            return pa.field(name, natural), pa.array(values, natural, from_pandas=False)
        except (OverflowError, UnicodeEncodeError, pa.ArrowInvalid):
            pass  # beyond what the type holds exactly
    del values
    chunks = [_text(table, name) for table in tables]
    return json_field(name, fields), pa.chunked_array(
        chain.from_iterable(c.chunks for c in chunks), pa.string()
    )


def _native(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    if name in table.column_names:
        return table.column(name).cast(kind)
    return pa.chunked_array([pa.nulls(table.num_rows, kind)])


def _values(table: pa.Table, name: str) -> list[Any]:
    if name not in table.column_names:
        return [None] * table.num_rows
    return [row.get(name) for row in decode_rows(table.select([name]))]


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    stored = is_json(table.schema.field(name))
    texts = table.column(name) if stored else json_texts(table, name)
    return pc.if_else(pc.equal(texts, "null"), pa.scalar(None, pa.string()), texts)
