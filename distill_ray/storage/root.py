"""What the URL of a cache root stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distill_ray.errors import StorageError
from distill_ray.storage.local import LocalStorage
from distill_ray.storage.objects import ObjectStorage
from distill_ray.storage.protocol import Storage

_LOCAL = ("file://", "local://")

_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/(?!/).*)")
"""What `Path` makes of a URL. One letter is no scheme; a folder of such a name is meant by ``./``."""


def is_shared(url: str) -> bool:
    """Whether other processes see what stands there; ``memory://`` is seen by the one that wrote it."""
    return not any(part.startswith("memory:") for part in url.split("::"))


def open_storage(url: str, storage_options: Mapping[str, Any] | None = None) -> Storage:
    """Open a cache root. Nothing is read or written yet.

    Args:
        url: a local path, or any fsspec URL (``gs://bucket/prefix``).
        storage_options: given to the fsspec file system; never written anywhere. Where they are options of
            several protocols (``{"gs": {...}, "s3": {...}}``), those of the URL's are.

    Raises:
        StorageError: the URL has a password in it, or a slash too few.
    """
    if found := _ONE_SLASH.fullmatch(url):
        raise StorageError(
            f"The cache root '{url}' has one slash after '{found[1]}:' (a `Path` of a URL has, too): give "
            f"'{found[1]}:/{found[2]}' as a text, or './{url}' for a folder of that name."
        )
    if "://" not in url or url.startswith(_LOCAL):
        return LocalStorage(str(Path(url.split("://", 1)[-1]).expanduser().absolute()))
    parts = urlsplit(url)
    if parts.password:
        raise StorageError(
            f"The cache root {parts.scheme}://...@{parts.hostname} has a password in its URL, which would "
            "be shown in logs and records: give it in `storage_options` instead."
        )
    return ObjectStorage(url.rstrip("/"), _options_for(parts.scheme, storage_options or {}))


def _options_for(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if options and all(isinstance(each, Mapping) for each in options.values()):
        import fsspec

        if set(options) <= set(fsspec.available_protocols()):
            return dict(options.get(protocol, {}))
    return dict(options)
