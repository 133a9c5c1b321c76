"""Columns that differ from part to part, in one schema that still holds every value exactly.

Each part has a schema of its own, the one that fits its rows. Files that are read side by side share one:

- a column that one Arrow type holds in every part has that type
- every other one is JSON text in all files: where types differ, where a part has JSON text already, or where
  some rows have None and others have no such key, which a NULL could not tell apart
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from distill_ray.cache.rows import decode_rows, encode_rows, make_mark, read_mark


def is_json(field: pa.Field) -> bool:
    """Tell whether a column is JSON text."""
    return read_mark(field).get("encoding") in ("json", "python-json")


def names_of(schema: pa.Schema) -> list[str]:
    """The columns of a part that are the user's."""
    return [field.name for field in schema if read_mark(field).get("encoding") != "placeholder"]


def common_type(fields: Iterable[pa.Field]) -> pa.DataType | None:
    """Give the Arrow type that holds a column in every part, or None where that has to be JSON text."""
    common = pa.null()
    for field in fields:
        if is_json(field):
            return None
        if common == pa.null():
            common = field.type
        elif field.type not in (common, pa.null()):
            return None
    return common


def uniform_schema(
    schemas: Sequence[pa.Schema], names: Sequence[str], holding_none: Callable[[Sequence[str]], set[str]]
) -> pa.Schema:
    """Give the one schema that all rows fit into.

    Args:
        schemas: of all parts.
        names: the columns wanted.
        holding_none: asked for columns that are not in every row: which of them have None in others?
    """
    found = {name: _fields(schemas, name) for name in names}
    gaps = {
        name
        for name, fields in found.items()
        if len(fields) < len(schemas) or any("null" in read_mark(field) for field in fields)
    }
    native = {name: kind for name, fields in found.items() if (kind := common_type(fields)) is not None}
    unclear = [name for name in names if name in gaps and name in native]
    mixed = holding_none(unclear) if unclear else set()
    return pa.schema(
        [
            _native_field(name, native[name], name in gaps)
            if name in native and name not in mixed
            else json_field(name, found[name])
            for name in names
        ]
        or encode_rows([{}]).schema
    )


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give the same rows in the schema that `uniform_schema` gave for them; other columns are left out."""
    return pa.Table.from_arrays([_conform_column(table, field) for field in schema], schema=schema)


def json_field(name: str, fields: Sequence[pa.Field]) -> pa.Field:
    """Give the field of a column of JSON text that was made of columns with these fields."""
    # What reads the second encoding reads the first as well.
    plain = all(read_mark(field).get("encoding") == "json" for field in fields)
    return pa.field(name, pa.string(), metadata=make_mark(encoding="json" if plain else "python-json"))


def json_texts(table: pa.Table, name: str) -> Any:
    """Give a column as JSON text: NULL where a row has no such key, ``null`` where it has None."""
    rows = decode_rows(table.select([name]))
    # A dict makes the codec write JSON text, whatever stands beside it.
    return encode_rows([*rows, {name: {}}]).column(name).slice(0, len(rows))


def _fields(schemas: Sequence[pa.Schema], name: str) -> list[pa.Field]:
    return [schema.field(name) for schema in schemas if name in schema.names]


def _native_field(name: str, kind: pa.DataType, gaps: bool) -> pa.Field:
    return pa.field(name, kind, metadata=make_mark(null="missing") if gaps else None)


def _conform_column(table: pa.Table, field: pa.Field) -> Any:
    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    stored_as_json = is_json(table.schema.field(field.name))
    if is_json(field) and not stored_as_json:
        return json_texts(table, field.name)
    if stored_as_json and not is_json(field):  # empty lists alone have no Arrow type of their own
        return pa.array(
            [row.get(field.name) for row in decode_rows(table.select([field.name]))],
            field.type,
            from_pandas=False,
        )
    return table.column(field.name).cast(field.type)
