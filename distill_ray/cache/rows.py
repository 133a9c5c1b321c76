"""The codec between rows (JSON-like dicts) and Arrow tables, and the content digests of rows.

``decode_rows(encode_rows(rows))`` gives the rows back exactly: missing keys and None, 1 and 1.0 and True,
integers beyond 64 bits, NaN, lone surrogates, nested lists and dicts with varying keys in their own order.
Only the order of a row's own keys is not kept: decoded rows have their keys in the order of the columns,
which is the order of first appearance over the rows. What is not JSON is normalised first, or refused, by the
rules in `distill_ray.cache.normalise`.

A column is native Arrow where one type holds every value exactly (text, booleans, 64-bit integers, floats,
lists of one of these); there a NULL is None, or a missing key where the column is so marked. Every other
column is JSON text, where None is ``null`` and a missing key is NULL. Marks are small JSON in the metadata of
a field:

- ``{"null": "missing"}``: a native column whose NULLs are missing keys
- ``{"encoding": "json"}``: JSON text
- ``{"encoding": "python-json"}``: the same with what orjson cannot hold: NaN, large integers, surrogates
- ``{"encoding": "placeholder"}``: no row has any key; Parquet wants one column nevertheless
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import partial
from hashlib import sha256
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Final

import orjson
import pyarrow as pa

from distill_ray.cache.arrays import make_array
from distill_ray.cache.normalise import SURROGATE, normalise, normalise_dict, plain_names, plain_rows
from distill_ray.errors import CorruptObjectError
from distill_ray.types import Row

DIGEST_SIZE: Final = 16
"""Bytes of one row's digest, and of one unit's key."""

MARK: Final = b"distill_ray.column"
"""The key of a column's mark in its field's metadata."""

_PLACEHOLDER: Final = "_no_columns"
# What orjson would write in a way of its own goes through `normalise` instead.
_EXACT: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
_dump_sorted = partial(orjson.dumps, option=_EXACT | orjson.OPT_SORT_KEYS)


class _Missing:
    """The type of `_MISSING`, which stands in a column for a row that has no such key."""


_MISSING: Final = _Missing()
_NO_VALUE: Final = frozenset({type(None), _Missing})
_SCALARS: Final[dict[type, Any]] = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_LEAVES: Final = frozenset({str, int, bool, type(None), _Missing})
_FLAT: Final = _LEAVES | {float}
_STORED: Final = frozenset({*_SCALARS, *_NO_VALUE, list, dict})


def encode_rows(rows: Sequence[Row]) -> pa.Table:
    """Give the table that holds the rows exactly.

    Args:
        rows: any rows, none included; keys and types may vary from row to row.

    Returns:
        One column for each key of any row, in the order of first appearance; at least one column always.

    Raises:
        RowError: a row holds what cannot be stored exactly.
    """
    rows = plain_rows(rows)
    names = plain_names(rows)
    if not names:
        field = pa.field(_PLACEHOLDER, pa.null(), metadata=make_mark(encoding="placeholder"))
        return pa.Table.from_arrays([pa.nulls(len(rows))], schema=pa.schema([field]))
    columns = [_encode_column(name, _values(rows, key)) for key, name in names.items()]
    return pa.Table.from_arrays(
        [data for _, data in columns], schema=pa.schema([field for field, _ in columns])
    )


def decode_rows(table: pa.Table) -> list[Row]:
    """Give the rows that `encode_rows` made the table, or a slice of it, from.

    Raises:
        CorruptObjectError: the table was not made by `encode_rows`.
    """
    names: list[str] = []
    columns: list[list[Any]] = []
    gaps = False
    for field, column in zip(table.schema, table.columns, strict=True):
        mark = read_mark(field)
        if mark.get("encoding") != "placeholder":
            names.append(field.name)
            columns.append(_decode_column(field.name, column, mark))
            gaps = gaps or (("null" in mark or "encoding" in mark) and column.null_count > 0)
    if not names:
        return [{} for _ in range(table.num_rows)]
    records = zip(*columns, strict=True)
    if not gaps:
        return list(map(dict, map(zip, repeat(names), records)))
    return [
        {name: value for name, value in zip(names, record, strict=True) if value is not _MISSING}
        for record in records
    ]


def concat_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Give the table that `encode_rows` gives for the rows of all tables in turn.

    Nothing is copied where the tables have the same schema.
    """
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return encode_rows([])
    schema = filled[0].schema
    if all(table.schema.equals(schema, check_metadata=True) for table in filled[1:]):
        return pa.concat_tables(filled)
    return encode_rows([row for table in filled for row in decode_rows(table)])


def make_mark(**mark: str) -> dict[bytes, bytes]:
    """Give a column's mark as its field's metadata: see above which marks there are."""
    return {MARK: orjson.dumps(mark)}


def read_mark(field: Any) -> dict[str, str]:
    """Give the mark of a column, by its field; nothing of a column that has none."""
    mark: dict[str, str] = orjson.loads((field.metadata or {}).get(MARK, b"{}"))
    return mark


def split_digests(digests: bytes) -> list[bytes]:
    """Give digests that stand one after the other, as `row_digests` gives them, one by one."""
    return [digests[start : start + DIGEST_SIZE] for start in range(0, len(digests), DIGEST_SIZE)]


def row_digests(rows: Sequence[Row]) -> bytes:
    """Give a 128-bit digest of each row's content, 16 bytes a row, in the rows' order.

    A row's digest depends on that row alone, and is the same before `encode_rows` and after `decode_rows`.
    The order of the row's own keys does not count, that of nested dicts does. A missing key and None differ,
    and so do 1, 1.0, True and "1".

    Raises:
        RowError: a row holds what cannot be stored exactly.
    """
    if _are_flat(rows):
        try:
            return b"".join([sha256(_dump_sorted(row)).digest()[:DIGEST_SIZE] for row in rows])
        except TypeError:  # one holds what orjson cannot
            pass
    return b"".join([sha256(preimage).digest()[:DIGEST_SIZE] for preimage in _preimages(rows)])


def _are_flat(rows: Sequence[Row]) -> bool:
    """Tell at a glance whether rows hold leaves only, and floats that all versions of orjson write alike."""
    try:
        kinds = set(map(type, chain.from_iterable(map(dict.values, rows))))
        if kinds <= _LEAVES:
            return True
        if not kinds <= _FLAT:
            return False
        values = chain.from_iterable(map(dict.values, rows))
        return not any(_is_written_variously(value) for value in values if type(value) is float)
    except TypeError:  # a row that is no dict: it is dealt with by itself
        return False


def _preimages(rows: Sequence[Row]) -> Iterator[bytes]:
    """Give what each row's digest is of."""
    last: tuple[str, ...] | None = None
    order: tuple[str, ...] = ()
    for index, row in enumerate(rows):
        try:
            keys = tuple(row)
            if keys != last:  # the rows of a batch mostly have the same
                order, last = tuple(sorted(keys)), keys
            ordered = row if order == keys else {key: row[key] for key in order}
            preimage: bytes | None = orjson.dumps(ordered, option=_EXACT)
            if _holds_float(row.values(), _is_written_variously):
                preimage = None
        except TypeError:
            preimage = None
        yield preimage or _canonical(row, index)


def _canonical(row: Row, index: int) -> bytes:
    """Give the digest's preimage for a row that orjson cannot hold, or writes differently in its versions."""
    plain = dict(sorted(normalise_dict(plain_rows([row], index)[0], (index,)).items()))
    try:
        if not _holds_float(plain.values(), _is_written_variously):
            return orjson.dumps(plain, option=_EXACT)
    except TypeError:
        pass
    return b"python-json " + _python_json(plain).encode()


def _holds_float(values: Iterable[Any], rule: Callable[[float], bool]) -> bool:
    """Tell whether a float that meets the rule is anywhere in the values."""
    for value in values:
        kind = type(value)
        if kind in _LEAVES:
            continue
        if kind is float:
            found = rule(value)
        elif kind is dict:
            found = _holds_float(value.values(), rule)
        elif kind is list or kind is tuple:
            found = _holds_float(value, rule)
        else:
            found = isinstance(value, Enum) and _holds_float((value.value,), rule)
        if found:
            return True
    return False


def _is_not_finite(value: float) -> bool:
    return value - value != 0.0


def _is_written_variously(value: float) -> bool:
    """Tell whether orjson's versions write the float in different ways (1e22, 1e+22), or as null."""
    return not (value == 0.0 or 1e-4 <= abs(value) < 1e15)


def _values(rows: Sequence[Row], key: Any) -> list[Any]:
    try:
        return list(map(itemgetter(key), rows))
    except KeyError:
        return [row.get(key, _MISSING) for row in rows]


def _encode_column(name: str, values: list[Any]) -> tuple[Any, Any]:
    kinds = set(map(type, values))
    if not kinds | _element_kinds(kinds, values) <= _STORED:
        values = _normalise_column(name, values)
        kinds = set(map(type, values))
    native = _native_type(kinds, values)
    if native is not None:
        has_gaps = _Missing in kinds
        plain = [None if value is _MISSING else value for value in values] if has_gaps else values
        try:
            data = make_array(plain, native)
        except (OverflowError, UnicodeEncodeError):
            pass  # beyond 64 bits, or a lone surrogate
        else:
            return pa.field(name, native, metadata=make_mark(null="missing") if has_gaps else None), data
    encoding, texts = _json_texts(name, values)
    return pa.field(name, pa.string(), metadata=make_mark(encoding=encoding)), make_array(texts, pa.string())


def _normalise_column(name: str, values: list[Any]) -> list[Any]:
    return [
        value if value is _MISSING else normalise(value, (index, name)) for index, value in enumerate(values)
    ]


def _element_kinds(kinds: set[type], values: list[Any]) -> set[type]:
    """Give the types of the elements of a column's lists."""
    if list not in kinds:
        return set()
    return set(map(type, chain.from_iterable(value for value in values if type(value) is list)))


def _native_type(kinds: set[type], values: list[Any]) -> pa.DataType | None:
    """Give the Arrow type that holds every value of the column exactly, if there is one."""
    if kinds >= _NO_VALUE:
        return None  # NULL could not tell None from a missing key
    kinds = kinds - _NO_VALUE
    if not kinds:
        return pa.null()
    if kinds != {list}:
        return _SCALARS.get(kinds.pop()) if len(kinds) == 1 else None
    elements = _element_kinds(kinds, values) - {type(None)}
    scalar = _SCALARS.get(elements.pop()) if len(elements) == 1 else None
    # "element" is Parquet's own name: a table read back has the schema that was written.
    return None if scalar is None else pa.list_(pa.field("element", scalar))


def _json_texts(name: str, values: list[Any]) -> tuple[str, list[Any]]:
    texts = _orjson_texts(values)
    if texts is None:
        values = _normalise_column(name, values)
        texts = _orjson_texts(values)
    if texts is not None:
        return "json", texts
    return "python-json", [None if value is _MISSING else _python_json(value) for value in values]


def _orjson_texts(values: list[Any]) -> list[bytes | None] | None:
    dumps = orjson.dumps
    try:
        texts = [None if value is _MISSING else dumps(value, option=_EXACT) for value in values]
    except TypeError:
        return None
    suspects = (value for value, text in zip(values, texts, strict=True) if text and b"null" in text)
    return None if _holds_float(suspects, _is_not_finite) else texts


def _decode_column(name: str, column: Any, mark: dict[str, str]) -> list[Any]:
    values: list[Any] = column.to_pylist()
    encoding = mark.get("encoding")
    if encoding is None:
        if mark.get("null") != "missing" or not column.null_count:
            return values
        return [_MISSING if value is None else value for value in values]
    load = _LOADERS.get(encoding)
    if load is None:
        raise CorruptObjectError(
            f"Column '{name}' has the encoding '{encoding}', which this version cannot read."
        )
    try:
        decoded = load(["null" if text is None else text for text in values] if column.null_count else values)
    except ValueError as error:
        raise CorruptObjectError(f"Column '{name}' is not the JSON that was written: {error}.") from error
    if not column.null_count:
        return decoded
    return [_MISSING if text is None else value for text, value in zip(values, decoded, strict=True)]


def _load_all(texts: list[str]) -> list[Any]:
    """Parse many JSON texts at once, which is several times faster than one by one."""
    values: list[Any] = orjson.loads(f"[{','.join(texts)}]")
    if len(values) != len(texts):
        raise ValueError(f"{len(texts)} texts hold {len(values)} values")
    return values


_encode_python_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
_ESCAPE: Final = re.compile(r"\\(\\|u[dD][89a-fA-F][0-9a-fA-F]{2})")


def _python_json(value: Any) -> str:
    """Write JSON that also holds NaN, infinities, integers of any size and lone surrogates."""
    text = _encode_python_json(value)
    if text.isascii():
        return text
    return SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _load_python_json(text: str) -> Any:
    """Read what `_python_json` wrote: two surrogates in a row stay two, which `json.loads` would join."""
    if "\\ud" in text:
        text = _ESCAPE.sub(lambda found: found[0] if found[1] == "\\" else chr(int(found[1][1:], 16)), text)
    return json.loads(text)


_LOADERS: Final[dict[str, Callable[[list[str]], list[Any]]]] = {
    "json": _load_all,
    "python-json": lambda texts: [_load_python_json(text) for text in texts],
}
