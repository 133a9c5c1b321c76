"""A server's address as a signed parameter: it must hold no secret."""

from __future__ import annotations

from urllib.parse import urlsplit

from distill_ray.errors import ParameterError


def without_credentials(url: str) -> str:
    """Return the address as it is.

    Raises:
        ParameterError: It holds a user name or password, which would be saved with the signature.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ParameterError(
            f"base_url of {parts.hostname} holds credentials, which would be saved with the signature: "
            "give api_key or default_headers instead."
        )
    return url
