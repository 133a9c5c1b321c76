"""The canonical encoding: every value framed by a tag and a length, so that no two values share one.

``encode_value`` is open: ``@encode_value.register`` adds a type of yours.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import singledispatch
from pathlib import PurePath
from typing import Any
from uuid import UUID

from distill_ray.errors import SignatureError

FORMAT = 1


def frame(tag: bytes, payload: bytes) -> bytes:
    """One value: a tag of one byte, the payload's length, the payload."""
    return tag + struct.pack(">Q", len(payload)) + payload


def digest(value: object) -> str:
    """SHA-256 of the encoding and its format version, in hex."""
    return hashlib.sha256(b"distill_ray" + struct.pack(">I", FORMAT) + encode(value)).hexdigest()


def encode(value: object, path: str = "") -> bytes:
    """Encode a value; containers recurse.

    Raises:
        SignatureError: names the place of a value that has no encoding.
    """
    if isinstance(value, Mapping):
        return _mapping(value, path)
    if isinstance(value, list | tuple):
        return frame(b"l", b"".join(encode(item, f"{path}[{n}]") for n, item in enumerate(value)))
    if isinstance(value, set | frozenset):
        return frame(b"S", b"".join(sorted(encode(item, f"{path}{{}}") for item in value)))
    try:
        return encode_value(value)
    except SignatureError as error:
        raise SignatureError(f"{path or 'the value'}: {error}") from error


def _mapping(value: Mapping[Any, Any], path: str) -> bytes:
    items = []
    for key, item in value.items():
        name = f"{path}.{key}" if path else str(key)
        items.append((encode(key, name), encode(item, name)))
    return frame(b"d", b"".join(key + item for key, item in sorted(items)))


@singledispatch
def encode_value(value: object) -> bytes:
    """Encode a value that is no container."""
    if type(value).__module__ == "numpy":
        return _numpy(value)
    raise SignatureError(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be signed. Annotate the field "
        "`Unsigned[...]`, name it in `exclude_from_signature`, or register an encoder with "
        "`distill_ray.signature.encode.encode_value.register`."
    )


def _numpy(value: Any) -> bytes:
    if not hasattr(value, "tobytes") or value.dtype.hasobject:
        raise SignatureError(f"a numpy {type(value).__qualname__} of Python objects cannot be signed.")
    shape = ",".join(map(str, value.shape))
    head = frame(b"s", value.dtype.str.encode()) + frame(b"s", shape.encode())
    return frame(b"n", head + value.tobytes())


@encode_value.register
def _(value: None) -> bytes:
    return frame(b"0", b"")


@encode_value.register
def _(value: bool) -> bytes:  # noqa: FBT001
    return frame(b"b", b"1" if value else b"0")


@encode_value.register
def _(value: int) -> bytes:
    return frame(b"i", str(int(value)).encode())


@encode_value.register
def _(value: float) -> bytes:
    return frame(b"f", b"nan" if value != value else float.__repr__(value).encode())  # noqa: PLR0124


@encode_value.register
def _(value: str) -> bytes:
    return frame(b"s", str(value).encode("utf-8", "surrogatepass"))


@encode_value.register
def _(value: bytes) -> bytes:
    return frame(b"y", value)


@encode_value.register
def _(value: Enum) -> bytes:
    return frame(b"e", encode(type(value).__qualname__) + encode(value.value))


@encode_value.register
def _(value: PurePath) -> bytes:
    return encode(str(value))


@encode_value.register(datetime)
@encode_value.register(date)
@encode_value.register(time)
def _(value: date | time) -> bytes:
    return frame(b"t", f"{type(value).__name__}:{value.isoformat()}".encode())


@encode_value.register
def _(value: timedelta) -> bytes:
    return frame(b"t", f"timedelta:{value.days}:{value.seconds}:{value.microseconds}".encode())


@encode_value.register
def _(value: Decimal) -> bytes:
    return frame(b"D", str(value).encode())


@encode_value.register
def _(value: UUID) -> bytes:
    return frame(b"u", value.bytes)


@encode_value.register
def _(value: type) -> bytes:
    return frame(b"c", f"{value.__module__}.{value.__qualname__}".encode())


def describe(value: object) -> Any:
    """The value as a JSON-able tree, for comparing field by field; what JSON lacks is described in text."""
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return value if abs(value) < 2**53 else repr(value)
    return f"{type(value).__name__}:{hashlib.sha256(encode(value)).hexdigest()}"
