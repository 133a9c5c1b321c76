"""Credentials that stand as plain texts in URLs, options and the environment: found, to be shown to nobody.

A text is taken for one by the name it has: ``token``, ``api_key``, ``X-Goog-Signature``.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

MASK = "**********"
"""What pydantic shows of a secret."""

_NAME = re.compile(
    r"(?<![a-z])(sig|signature|sas|(api|access|account|private|secret)[_-]?key|secret|password|passwd|token"
    r"|credentials?|\Aauth\Z|authorization|cookie|connection[_-]?string)(?![a-z])",
    re.IGNORECASE,
)

_SHORTEST = 6
"""Characters of a credential: what is shorter stands in too many messages by chance."""


def names_credential(name: object) -> bool:
    """Whether what has this name is a credential.

    Example:
        >>> [name for name in ("hf_token", "max_tokens", "key", "x-api-key") if names_credential(name)]
        ['hf_token', 'x-api-key']
    """
    return isinstance(name, str) and _NAME.search(name) is not None


def without(text: str, secrets: Iterable[str]) -> str:
    """Mask secrets in a text, also as they look in quotes or in a URL."""
    forms = {form for secret in secrets if secret.strip() for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def credentials_in(value: Any, name: object = "") -> Iterator[str]:
    """Give the credentials in a text or a tree of dicts and lists that has this name.

    Example:
        >>> list(credentials_in({"token": "abcdefg", "project": "us", "url": "https://me:hidden@host/x"}))
        ['abcdefg', 'hidden']
    """
    if isinstance(value, str):
        if names_credential(name) and len(value) >= _SHORTEST:
            yield value
        yield from credentials_in_url(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from credentials_in(item, name if names_credential(name) else key)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from credentials_in(item, name)


def credentials_in_url(url: str) -> Iterator[str]:
    """Give the password in a URL and the values of its query that are credentials, as they stand there."""
    if "://" not in url:
        return
    try:
        parts = urlsplit(url)
    except ValueError:  # no URL after all
        return
    if parts.password:
        yield parts.password
    raw = dict(pair.partition("=")[::2] for pair in parts.query.split("&"))
    decoded = dict(parse_qsl(parts.query))
    for name in filter(names_credential, raw):
        yield from (found[name] for found in (raw, decoded) if found.get(name))


def cause(error: Exception, secrets: Iterable[str]) -> Exception | None:
    """Return the error to raise another one from; None where it, or what led to it, says a secret."""
    text = "".join(traceback.format_exception(error))
    return error if without(text, secrets) == text else None


def shown(value: Any) -> Any:
    """A URL, or a tree of lists and dicts that holds some, without their credentials.

    Example:
        >>> shown("https://me:hidden@host/rows.jsonl?part=1&sig=abc")
        'https://me:**********@host/rows.jsonl?part=1&sig=**********'
    """
    if isinstance(value, str):
        return without(value, credentials_in_url(value))
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list) else value


def _forms(secret: str) -> set[str]:
    """A secret as it stands in a message: written out, in quotes, or in a URL."""
    data = secret.encode("utf-8", "surrogatepass")
    return {
        secret,
        repr(secret)[1:-1],
        repr(data)[2:-1],
        json.dumps(secret)[1:-1],
        quote(data),
        quote(data, safe=""),
    }
