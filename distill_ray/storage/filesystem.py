"""fsspec file systems as we want them: our own instance, nothing listed from memory, writes checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from distill_ray import credentials
from distill_ray.errors import StorageError


def open_filesystem(url: str, options: Mapping[str, Any] | None = None, **defaults: Any) -> tuple[Any, str]:
    """Return a file system for the URL and the path in it.

    Args:
        url: a local path, or any URL that fsspec knows.
        options: what the file system needs, such as credentials.
        defaults: for Google Cloud Storage: what holds where neither ``options`` nor fsspec's configuration
            says otherwise.

    Raises:
        StorageError: there is no such file system, or it cannot be set up.
    """
    import fsspec

    settings = {"use_listings_cache": False, "skip_instance_cache": True, **(options or {})}
    protocol = fsspec.core.split_protocol(url)[0]
    try:
        if protocol in {"gs", "gcs"} and "::" not in url:
            filesystem = _google_filesystem(settings, defaults)
            return filesystem, filesystem._strip_protocol(url)  # noqa: SLF001 - fsspec's own contract
        if protocol is None and "::" not in url:
            url = os.path.expanduser(url)  # noqa: PTH111 - a string, since it may be a glob
        filesystem, path = fsspec.core.url_to_fs(url, **settings)
    except (ValueError, ImportError) as error:
        secrets = list(credentials.credentials_in([url, options]))
        text = credentials.without(f"Cannot open '{url}': {error}", secrets)
        raise StorageError(text) from credentials.cause(error, secrets)
    return filesystem, path


def _google_filesystem(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    import aiohttp
    import fsspec

    # By its module: what fsspec's registry gives for "gs" asks the kind of every bucket first, over gRPC.
    from gcsfs.core import GCSFileSystem

    configured = {**fsspec.config.conf.get("gcs", {}), **fsspec.config.conf.get("gs", {})}
    ours = {
        "consistency": "md5",  # of what was sent, against what the store says it holds
        # Only a silent connection counts: gcsfs tries again after that, but not after a total time-out.
        "requests_timeout": aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
    }
    return GCSFileSystem(**{**ours, **defaults, **configured, **settings})
