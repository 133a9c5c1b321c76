"""What stands for a value in a signature, type by type, open to users' types.

`distill_ray.signature.encode` encodes None, bool, int, float, str, bytes, lists, dicts and sets itself.
Every other type is registered here with a function that returns one of these in its place.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import sys
import uuid
import zoneinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import singledispatch
from pathlib import PurePath
from types import EllipsisType, FunctionType, MappingProxyType
from typing import Any, ClassVar, NamedTuple

from distill_ray.signature.qualified_name import qualified_name


class Tagged(NamedTuple):
    """A value's kind, and what stands for it: itself encodable.

    Attributes:
        tag: names the kind. Names without a dot are ours; a user's type has its qualified name.
        value: something the encoding knows.
    """

    tag: str
    value: object


class UnencodableError(Exception):
    """The value has no stand-in; the text says why and what to do instead."""


@singledispatch
def encode_value(value: object) -> object:
    """Return what stands for a value in its signature. Register a type of yours with it.

    Return a dict, list, str, number or another encodable value that differs whenever the output of a step
    that holds the value may differ. The name of the type is added, so two types never meet.

    Example:
        >>> class Temperature:
        ...     def __init__(self, degrees: float) -> None:
        ...         self.degrees = degrees
        >>> @encode_value.register
        ... def _(value: Temperature) -> object:
        ...     return value.degrees
    """
    array = _numpy_stand_in(value)
    if array is not None:
        return array
    raise UnencodableError(_why_not(value))


def stand_in(value: object) -> Tagged:
    """The tagged stand-in of a value whose type is not one of the encoding's own.

    Raises:
        UnencodableError: nothing is registered for its type.
    """
    if isinstance(value, Tagged):
        return value
    if isinstance(value, Enum):
        return Tagged("enum", [qualified_name(type(value)), value.value])
    found = encode_value(value)
    return found if isinstance(found, Tagged) else Tagged(qualified_name(type(value)), found)


def is_secret(value: object) -> bool:
    """Whether a value is pydantic's SecretStr, SecretBytes or Secret."""
    return _is_pydantic(value, "SecretStr", "SecretBytes", "Secret")


def _why_not(value: object) -> str:
    name = qualified_name(type(value))
    if is_secret(value):
        return f"a {name} is a secret and must never be part of a signature: leave it out."
    if isinstance(value, FunctionType):
        return "a function is signed by its code: distill_ray.signature.fingerprint does that."
    declared = _is_pydantic(value, "BaseModel") or dataclasses.is_dataclass(value)
    hint = " A model or dataclass is signed field by field, by the step that declares it." if declared else ""
    return (
        f"a {name} cannot be signed.{hint} Register an encoder with @encode_value.register "
        "(distill_ray.signature.stand_in), annotate the field Unsigned if it never changes an output, "
        "or name it in exclude_from_signature."
    )


def _is_pydantic(value: object, *names: str) -> bool:
    pydantic = sys.modules.get("pydantic")
    kinds = tuple(getattr(pydantic, name) for name in names if hasattr(pydantic, name))
    return isinstance(value, kinds)


def _numpy_stand_in(value: object) -> Tagged | None:
    """Numpy's scalars and arrays, if numpy is in use at all: a process without it has none of them."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "ndarray"):
        return None
    is_array = type(value) is numpy.ndarray
    if not is_array and not isinstance(value, numpy.generic):
        return None
    array: Any = value
    if array.dtype.hasobject:
        raise UnencodableError("a numpy array of Python objects cannot be signed: turn it into a list.")
    kind = array.dtype.str if array.dtype.names is None else array.dtype.descr
    if is_array:
        return Tagged("numpy_array", [kind, list(array.shape), array.tobytes()])
    return Tagged("numpy_scalar", [kind, array.tobytes()])


# Subclasses of the encoding's own types count with their class: Markup("a") is not "a".


@encode_value.register
def _(value: str) -> object:
    return str.__str__(value)


@encode_value.register
def _(value: int) -> object:
    return int.__int__(value)


@encode_value.register
def _(value: float) -> object:
    return float.__float__(value)


@encode_value.register
def _(value: bytes) -> object:
    return bytes(memoryview(value))


@encode_value.register
def _(value: bytearray) -> object:
    return Tagged("bytearray", bytes(value))


@encode_value.register(list)
@encode_value.register(tuple)
def _(value: list[object] | tuple[object, ...]) -> object:
    return list(value)


@encode_value.register(set)
@encode_value.register(frozenset)
def _(value: set[object] | frozenset[object]) -> object:
    return set(value)


@encode_value.register
def _(value: dict) -> object:  # type: ignore[type-arg]
    return dict(value)


@encode_value.register
def _(value: MappingProxyType) -> object:  # type: ignore[type-arg]
    return Tagged("mapping", dict(value))


@encode_value.register
def _(value: type) -> object:
    return Tagged("type", qualified_name(value))


@encode_value.register(type(ClassVar))
def _(value: object) -> object:  # Any is one of these before Python 3.11, and a class since
    return Tagged("type", qualified_name(value))


@encode_value.register
def _(value: PurePath) -> object:
    return Tagged("path", str(value))


@encode_value.register
def _(value: dt.datetime) -> object:
    return Tagged("datetime", [value.isoformat(), value.fold, value.tzinfo])


@encode_value.register
def _(value: dt.date) -> object:
    return Tagged("date", value.isoformat())


@encode_value.register
def _(value: dt.time) -> object:
    return Tagged("time", [value.isoformat(), value.fold, value.tzinfo])


@encode_value.register
def _(value: dt.timedelta) -> object:
    return Tagged("timedelta", [value.days, value.seconds, value.microseconds])


@encode_value.register
def _(value: dt.timezone) -> object:
    return Tagged("timezone", [value.utcoffset(None), value.tzname(None)])


@encode_value.register
def _(value: zoneinfo.ZoneInfo) -> object:
    if value.key is None:
        raise UnencodableError("a time zone without a name cannot be signed: make it with ZoneInfo(key).")
    return Tagged("zone", value.key)


@encode_value.register
def _(value: Decimal) -> object:
    return Tagged("decimal", str(value))


@encode_value.register
def _(value: Fraction) -> object:
    return Tagged("fraction", [value.numerator, value.denominator])


@encode_value.register
def _(value: complex) -> object:
    return Tagged("complex", [value.real, value.imag])


@encode_value.register
def _(value: uuid.UUID) -> object:
    return Tagged("uuid", value.hex)


@encode_value.register
def _(value: range) -> object:
    return Tagged("range", [value.start, value.stop, value.step])


@encode_value.register
def _(value: re.Pattern) -> object:  # type: ignore[type-arg]
    return Tagged("pattern", [value.pattern, value.flags])


@encode_value.register(EllipsisType)
def _(_value: object) -> object:
    return Tagged("ellipsis", None)
