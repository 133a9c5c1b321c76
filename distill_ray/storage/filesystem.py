"""fsspec file systems as we want them: our own instance, nothing listed from memory, writes checked."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from distill_ray import credentials
from distill_ray.errors import StorageError
from distill_ray.storage.faults import is_no_bucket, is_passing, remedy
from distill_ray.storage.patience import named, outage_of

_LISTED = "items(name,size),prefixes,nextPageToken"
"""What is asked for of each object in a listing: a tenth of its record."""


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
            filesystem = _google_filesystem(url, settings, defaults)
            return filesystem, filesystem._strip_protocol(url)  # noqa: SLF001 - fsspec's own contract
        if protocol is None and "::" not in url:
            url = os.path.expanduser(url)  # noqa: PTH111 - a string, since it may be a glob
        if protocol in {"s3", "s3a"} and "::" not in url:
            # One request for an object: what is read from several asks for its size first.
            settings = {"max_concurrency": 1, **_configured("s3"), **settings}
        filesystem, path = fsspec.core.url_to_fs(url, **settings)
    except (ValueError, ImportError) as error:
        secrets = list(credentials.credentials_in([url, options]))
        text = " ".join(filter(None, (f"Cannot open '{url}': {error}", remedy(error, url))))
        raise StorageError(credentials.without(text, secrets)) from credentials.cause(error, secrets)
    return filesystem, path


def speaks(filesystem: Any, protocol: str) -> bool:
    """Whether a file system is the one of this protocol."""
    names = filesystem.protocol
    return protocol == names or (not isinstance(names, str) and protocol in names)


def store_of(url: str) -> str:
    """What of a URL fails as one: the bucket."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}"


def list_folder(filesystem: Any, url: str) -> Iterator[tuple[str, int | None]]:
    """Give what stands right below a folder: names of objects with their sizes, names of folders with None.

    Raises:
        FileNotFoundError: there is no such bucket; some file systems say so of a folder, too.
    """
    if speaks(filesystem, "gs"):
        yield from _list_google_folder(filesystem, url)
        return
    try:
        entries = filesystem.ls(url.rstrip("/"), detail=True)
    except FileNotFoundError as error:
        if is_no_bucket(error):
            raise
        return
    for entry in entries:
        name = str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]
        if entry["type"] == "file":
            yield name, entry["size"]
        elif entry["type"] == "directory":
            yield name, None


def _list_google_folder(filesystem: Any, url: str) -> Iterator[tuple[str, int | None]]:
    # Not `ls`: it looks for an object where a folder is empty, which is another request, and takes a
    # bucket that is not there for an empty one.
    bucket, folder, _ = filesystem.split_path(url)
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    page: str | None = ""
    while page is not None:
        asked = {"delimiter": "/", "prefix": prefix or None, "pageToken": page or None, "fields": _LISTED}
        listed = filesystem.call("GET", "b/{}/o", bucket, json_out=True, maxResults=1000, **asked)
        for item in listed.get("items", ()):
            if name := item["name"][len(prefix) :]:
                yield name, int(item["size"])
        for each in listed.get("prefixes", ()):
            yield each[len(prefix) :].rstrip("/"), None
        page = listed.get("nextPageToken")


def _configured(*protocols: str) -> dict[str, Any]:
    import fsspec

    return {key: value for each in protocols for key, value in fsspec.config.conf.get(each, {}).items()}


def _google_filesystem(url: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    import aiohttp

    # By its module: what fsspec's registry gives for "gs" asks the kind of every bucket first, over gRPC.
    from gcsfs.core import GCSFileSystem

    logging.getLogger("gcsfs").addFilter(_is_news)
    ours = {
        "consistency": "md5",  # of what was sent, against what the store says it holds
        # Only a silent connection counts: gcsfs tries again after that, but not after a total time-out.
        "requests_timeout": aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
    }
    chosen = {**ours, **defaults, **_configured("gcs", "gs"), **settings}
    session = dict(chosen.get("session_kwargs") or {})
    session["trace_configs"] = [*session.get("trace_configs", ()), _watched(store_of(url))]
    return GCSFileSystem(**{**chosen, "session_kwargs": session})


def _is_news(record: logging.LogRecord) -> bool:
    """Whether gcsfs's log says what is not raised as well: of each error it also logs where it came from."""
    return record.module != "retry" or record.exc_info is None


def _watched(store: str) -> Any:
    """Have it be heard that gcsfs tries again, of which it tells nobody for half a minute."""
    import aiohttp

    outage, trace = outage_of(store), aiohttp.TraceConfig()

    async def begin(_: Any, context: Any, __: Any) -> None:
        context.began = time.monotonic()

    async def end(_: Any, context: Any, answer: Any) -> None:
        status = answer.response.status
        if status == 429 or status >= 500:
            outage.failed(named(status), context.began)
        else:
            outage.answered()

    async def fail(_: Any, context: Any, failure: Any) -> None:
        if is_passing(failure.exception):
            outage.failed(type(failure.exception).__name__, context.began)

    trace.on_request_start.append(begin)
    trace.on_request_end.append(end)
    trace.on_request_exception.append(fail)
    return trace
