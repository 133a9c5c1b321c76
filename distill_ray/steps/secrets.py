"""The secrets that a step holds, to keep them out of what is said of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distill_ray import credentials
from distill_ray.signature.stand_in import is_secret
from distill_ray.steps.marks import is_unsigned


def without_secrets(text: str, holder: object) -> str:
    """Mask the secrets that ``holder``, a step, has anywhere in its parameters, and those of the environment.

    These are pydantic's secrets; credentials in URLs; and texts that are no part of a signature and have the
    name of a credential.

    Example:
        >>> from pydantic import SecretStr
        >>> without_secrets("no access with sk-1", {"headers": [SecretStr("sk-1")]})
        'no access with **********'
    """
    environment = credentials.credentials_in(dict(os.environ))
    return credentials.without(text, {*_secrets_in(holder, set()), *environment})


def is_credential(name: str, field: FieldInfo) -> bool:
    """Whether a parameter that may be a plain text is a secret: no part of a signature, and so named."""
    return is_unsigned(field) and credentials.names_credential(name)


def _secrets_in(value: Any, seen: set[int]) -> Iterator[str]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if is_secret(value):
        secret = value.get_secret_value()
        yield secret.decode("utf-8", "replace") if isinstance(secret, bytes) else str(secret)
    elif isinstance(value, str):
        yield from credentials.credentials_in_url(value)
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            item = getattr(value, name)
            if is_unsigned(field) or field.exclude:
                yield from credentials.credentials_in(item, name)
            yield from _secrets_in(item, seen)
        yield from _secrets_in(value.model_extra, seen)
        yield from _secrets_in(value.__pydantic_private__, seen)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _secrets_in(vars(value), seen)
    elif isinstance(value, Mapping | list | tuple | set | frozenset):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _secrets_in(item, seen)
