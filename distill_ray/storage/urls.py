"""The URLs that users read from: open, expand, identify their content."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from distill_ray import credentials
from distill_ray.errors import StorageError
from distill_ray.storage.filesystem import open_filesystem
from distill_ray.storage.protocol import storage_errors

_GLOB_CHARACTERS = frozenset("*?[")
_HASH_CHUNK = 1 << 20
_SETTLED_AFTER_NS = 2_000_000_000
_LOCAL_DIGESTS: dict[tuple[str | int, ...], str] = {}


def open_url(url: str, mode: str = "rb", storage_options: Mapping[str, Any] | None = None) -> Any:
    """Open a file for reading or writing; what it gives is a context manager whose value is the file.

    Compression is inferred from the end of the name (``.gz``, ``.bz2``, ``.xz``, ``.zst`` where the
    library for it is installed).

    Args:
        url: a local path, or any URL that fsspec knows (``gs://bucket/name``).
        mode: ``"rb"``, ``"rt"``, ``"wb"`` or ``"wt"``.
        storage_options: what the file system needs, such as credentials.
    """
    import fsspec

    filesystem, path = open_filesystem(url, storage_options)
    compression = fsspec.utils.infer_compression(path)
    return fsspec.core.OpenFile(filesystem, path, mode=mode, compression=compression, encoding="utf-8")


def expand(url: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """List the files that a path, a glob or a folder stands for, sorted by name.

    In a folder (searched to its depths) files whose name begins with ``.`` or ``_`` are passed over.

    Raises:
        StorageError: there is none.
    """
    filesystem, path = open_filesystem(url, storage_options)
    with storage_errors("list", f"'{url}'", holding=[url, storage_options]):
        found = _find_files(filesystem, path)
    if not found:
        raise StorageError(f"No file found at '{credentials.shown(url)}'.")
    local = _is_local(filesystem)
    return sorted(name if local else filesystem.unstrip_protocol(name) for name in found)


def _find_files(filesystem: Any, path: str) -> list[str]:
    # Not `isfile` and `isdir`: they take an unreachable store for one without the file.
    try:
        kind = filesystem.info(path)["type"]
    except FileNotFoundError:
        kind = None
    if kind == "file":
        return [path]
    if kind == "directory":
        return [name for name in filesystem.find(path) if not name.rsplit("/", 1)[-1].startswith((".", "_"))]
    if _GLOB_CHARACTERS.intersection(path):
        return [name for name, info in filesystem.glob(path, detail=True).items() if info["type"] == "file"]
    return []


def identity(url: str, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what identifies a file's content, without its modification time.

    A content digest where the store keeps one or the file is local; else the store's generation or
    entity tag, together with the URL, since these say nothing apart from it; else the content is read, as
    it is where the URL may hold a credential, which is to be in no signature.

    Raises:
        StorageError: there is no such file.
    """
    filesystem, path = open_filesystem(url, storage_options)
    try:
        with storage_errors("read", f"'{url}'", FileNotFoundError, holding=[url, storage_options]):
            info = filesystem.info(path)
    except FileNotFoundError:
        raise StorageError(f"No file found at '{credentials.shown(url)}'.") from None
    if _is_local(filesystem):
        return {"size": info["size"], "sha256": _local_sha256(filesystem, path)}
    if info.get("md5Hash"):
        return {"size": info["size"], "md5": info["md5Hash"]}
    tags = {
        name: str(info[key])
        for name, key in _CONTENT_TAGS
        if info.get(key) is not None and not isinstance(info[key], bool)
    }
    if tags and not _may_hold_credentials(url):
        return {"size": info.get("size"), "url": url, **tags}
    return {"sha256": _sha256(filesystem, path)}


def _may_hold_credentials(url: str) -> bool:
    """Whether the URL has a user or a query, as signed ones have."""
    parts = urlsplit(url)
    return bool(parts.query or parts.username or parts.password)


_CONTENT_TAGS = (
    ("generation", "generation"),
    ("crc32c", "crc32c"),
    ("etag", "ETag"),
    ("etag", "etag"),
    ("version", "VersionId"),
)


def _is_local(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def _local_sha256(filesystem: Any, path: str) -> str:
    """Hash a local file, once for each state of it; one changed just now may change again unseen."""
    state = os.stat(path)  # noqa: PTH116 - fsspec's paths are strings
    # Anyone can set the time of modification back, and nobody that of the last change of the file's record.
    key = (path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if key in _LOCAL_DIGESTS:
        return _LOCAL_DIGESTS[key]
    started = time.time_ns()
    digest = _sha256(filesystem, path)
    if started - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED_AFTER_NS:
        _LOCAL_DIGESTS[key] = digest
    return digest


def _sha256(filesystem: Any, path: str) -> str:
    content = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            content.update(chunk)
    return content.hexdigest()
