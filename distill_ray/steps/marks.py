"""Which marks (``Unsigned``, ``RuntimeParameter``) a field's annotation carries."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from distill_ray.types import RuntimeParameterMark, UnsignedMark


def is_unsigned(field: FieldInfo) -> bool:
    """Whether the parameter is no part of a signature: it is marked so, or may hold a secret."""
    marked = any(isinstance(mark, UnsignedMark) for mark in field_marks(field))
    return marked or _may_be_secret(field.annotation)


def is_runtime_parameter(field: FieldInfo) -> bool:
    """Whether the parameter may be given to a run."""
    return any(isinstance(mark, RuntimeParameterMark) for mark in field_marks(field))


def field_marks(field: FieldInfo) -> Iterator[Any]:
    """All marks of a field, also those inside ``Optional``."""
    yield from field.metadata
    yield from _marks(field.annotation)


def _may_be_secret(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        return any(_may_be_secret(argument) for argument in get_args(annotation))
    kind = origin or annotation
    return isinstance(kind, type) and issubclass(kind, SecretStr | SecretBytes | Secret)


def _marks(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    if get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        for argument in get_args(annotation):
            yield from _marks(argument)
