"""What a row may hold, and how values that are not JSON are normalised to it or refused.

- tuples and subclasses of list become lists, subclasses of dict become dicts
- Enum members become their value; subclasses of str, int and float lose their class
- numpy scalars and arrays become Python scalars and nested lists (``datetime64`` becomes ISO text)
- datetime, date and time become ISO text; UUIDs and paths become text

Everything else is refused with a `RowError` that names the row and the path in it: bytes, sets, complex
numbers, keys that are not text or hold lone surrogates, integers of more than 4,000 digits, nesting deeper
than 256 levels, and other objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, time
from enum import Enum
from itertools import chain
from pathlib import PurePath
from typing import Any, Final, NoReturn, TypeAlias
from uuid import UUID

from distill_ray.errors import RowError
from distill_ray.types import Row

Path: TypeAlias = tuple[Any, ...]
"""Where a value stands: the row's index, then keys and list indices."""

SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half a pair of UTF-16, which no UTF-8 can hold."""

_PLAIN: Final = frozenset({str, bool, int, float, type(None)})
_NUMPY_KINDS: Final = frozenset("biufUO")  # booleans, integers, floats, text, Python objects
_MAX_DEPTH: Final = 256
_MAX_INTEGER_BITS: Final = 13_287  # 4,000 digits: Python itself refuses to parse more than 4,300


def plain_rows(rows: Sequence[Row], first: int = 0) -> Sequence[Row]:
    """Give the rows as dicts and nothing but dicts; ``first`` is the index of the first one in messages."""
    if set(map(type, rows)) <= {dict}:
        return rows
    for index, row in enumerate(rows, first):
        if not isinstance(row, dict):
            raise RowError(f"Row {index} is of type {type(row).__name__}: a row is a dict; make it one.")
    return [dict(row) for row in rows]


def plain_names(rows: Sequence[Row]) -> dict[Any, str]:
    """Give the keys of all rows, in the order of first appearance, each with the text it stands for."""
    names = dict.fromkeys(chain.from_iterable(rows), "")
    for key in names:
        if type(key) is not str or not key.isascii():
            path = (next(index for index, row in enumerate(rows) if key in row),)
            names[key] = _plain_key(key, path)
        else:
            names[key] = key
    return names


def normalise(value: Any, path: Path) -> Any:
    """Give the value as JSON-like data: None, bool, int, float, str, and lists and dicts of these.

    Args:
        value: what a step gave.
        path: where it stands, for the message.

    Raises:
        RowError: it cannot be normalised without losing something.
    """
    kind = type(value)
    if kind in _PLAIN:
        if kind is int and value.bit_length() > _MAX_INTEGER_BITS:
            _refuse(path, "an integer of more than 4,000 digits", "write it as text, such as hex(value)")
        return value
    if len(path) > _MAX_DEPTH + 1:
        _refuse(path, f"a value nested deeper than {_MAX_DEPTH} levels", "flatten it, or mend the loop in it")
    if isinstance(value, dict):
        return normalise_dict(value, path)
    if isinstance(value, (list, tuple)):
        return [normalise(item, (*path, index)) for index, item in enumerate(value)]
    if kind.__module__ == "numpy":
        return normalise(_from_numpy(value, path), path)
    convert = next((convert for kinds, convert in _CONVERSIONS if isinstance(value, kinds)), None)
    if convert is not None:
        return normalise(convert(value), path)
    remedy = next((remedy for kinds, remedy in _REMEDIES if isinstance(value, kinds)), _REMEDY)
    return _refuse(path, f"a value of type {kind.__name__}", remedy)


def normalise_dict(value: dict[Any, Any], path: Path) -> dict[str, Any]:
    """Normalise a dict's values, and see that its keys are text."""
    return {(plain := _plain_key(key, path)): normalise(item, (*path, plain)) for key, item in value.items()}


def _plain_key(key: Any, path: Path) -> str:
    if not isinstance(key, str):
        _refuse(path, f"the key {key!r} of type {type(key).__name__}", "make every key a str")
    plain = str.__str__(key)
    if not plain.isascii() and SURROGATE.search(plain):
        _refuse(path, f"the key {plain!a} with a lone surrogate", "make every key valid Unicode")
    return plain


def _from_numpy(value: Any, path: Path) -> Any:
    """Give what a numpy scalar or array holds; numpy itself is not imported."""
    dtype = getattr(value, "dtype", None)
    kind = getattr(dtype, "kind", "")
    if kind == "M":
        return value.astype(str).tolist()
    plain = value.tolist() if kind in _NUMPY_KINDS else value
    if type(plain).__module__ == "numpy":  # longdouble, for one, has no Python equal
        _refuse(path, f"a numpy value of type {dtype or type(value).__name__}", _REMEDY)
    return plain


def _refuse(path: Path, what: str, remedy: str) -> NoReturn:
    index, *keys = path or (None,)
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys[:20])
    where = f", `{place[1:]}{'...' if len(keys) > 20 else ''}`" if keys else ""
    raise RowError(f"Row {index}{where}: {what} cannot be stored exactly; {remedy}.")


_CONVERSIONS: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (Enum, lambda member: member.value),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    ((date, time), lambda moment: moment.isoformat()),  # a datetime is a date
    ((UUID, PurePath), str),
)

_REMEDIES: Final[tuple[tuple[Any, str], ...]] = (
    ((bytes, bytearray, memoryview), "decode it to text, such as base64"),
    ((set, frozenset), "make it a list in an order of your own, such as sorted(value)"),
    (complex, "store its real and imaginary parts as two floats"),
)
_REMEDY: Final = "make it text, a number, a list or a dict first"
