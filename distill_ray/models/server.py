"""How a model server is reached: its address, which is signed and must hold no secret, and the key to it."""

from __future__ import annotations

import os
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from distill_ray.errors import ParameterError


def checked_address(url: str) -> str:
    """Return the address as it is.

    Raises:
        ParameterError: It holds a user name or password, which would be saved with the signature; or it is
            none that can be asked over HTTP.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ParameterError(
            f"base_url of {parts.hostname} holds credentials, which would be saved with the signature: "
            "give api_key or default_headers instead."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ParameterError(
            "base_url is no server's address: give one that begins with http:// or https://, such as "
            "'http://localhost:8000/v1'."
        )
    return url


BaseUrl: TypeAlias = Annotated[str, AfterValidator(checked_address)]
"""A server's address."""


def key_in(variable: str) -> SecretStr | None:
    """Return the key that an environment variable of the driver holds, if it is set."""
    key = os.environ.get(variable)
    return SecretStr(key) if key else None
