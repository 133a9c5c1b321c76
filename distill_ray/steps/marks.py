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
    marked = any(isinstance(mark, UnsignedMark) for mark in _marks_of(field))
    return marked or _may_be_secret(field.annotation)


def is_runtime_parameter(field: FieldInfo) -> bool:
    """Whether the parameter may be given to a run."""
    return any(isinstance(mark, RuntimeParameterMark) for mark in _marks_of(field))


def marks_in(annotation: Any) -> Iterator[Any]:
    """All marks of an annotation, also those inside ``Optional``."""
    yield from getattr(annotation, "__metadata__", ())
    if _is_composed(annotation):
        for argument in get_args(annotation):
            yield from marks_in(argument)


def _marks_of(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    yield from marks_in(field.annotation)


def _may_be_secret(annotation: Any) -> bool:
    if _is_composed(annotation):
        return any(_may_be_secret(argument) for argument in get_args(annotation))
    kind = get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, SecretStr | SecretBytes | Secret)


def _is_composed(annotation: Any) -> bool:
    """Whether it is a union, or ``Annotated``: what it is made of says what it means."""
    return get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__")
