"""The secrets that a step holds, to keep them out of what is said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from distill_ray.signature.stand_in import is_secret

MASK = "**********"
"""What pydantic shows of a secret."""


def without_secrets(text: str, holder: object) -> str:
    """Mask the secrets that ``holder``, a step, has anywhere in its parameters.

    Example:
        >>> from pydantic import SecretStr
        >>> without_secrets("no access with sk-1", {"headers": [SecretStr("sk-1")]})
        'no access with **********'
    """
    for secret in sorted(set(_secrets_in(holder, set())), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _secrets_in(value: Any, seen: set[int]) -> Iterator[str]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if is_secret(value):
        yield from _texts_of(value.get_secret_value())
    elif isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        for item in vars(value).values():
            yield from _secrets_in(item, seen)
    elif isinstance(value, Mapping | list | tuple | set | frozenset):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _secrets_in(item, seen)


def _texts_of(secret: Any) -> Iterator[str]:
    """A secret as it stands in a message: written out, or in quotes."""
    text = secret.decode("utf-8", "replace") if isinstance(secret, bytes) else str(secret)
    if text.strip():
        yield from {text, repr(text)[1:-1]}
