"""The only user of fsspec: the URLs that users read from, and the storage that the cache is kept on."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from distill_ray.errors import StorageError

# URLs that users read from

_GLOB_CHARACTERS = frozenset("*?[")
_HASH_CHUNK = 1 << 20
_SETTLED_AFTER_NS = 2_000_000_000
_LOCAL_DIGESTS: dict[tuple[str, int, int], str] = {}


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

    filesystem, path = _filesystem(url, storage_options)
    compression = fsspec.utils.infer_compression(path)
    return fsspec.core.OpenFile(filesystem, path, mode=mode, compression=compression, encoding="utf-8")


def expand(url: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """List the files that a path, a glob or a folder stands for, sorted by name.

    In a folder (searched to its depths) files whose name begins with ``.`` or ``_`` are passed over.

    Raises:
        StorageError: there is none.
    """
    filesystem, path = _filesystem(url, storage_options)
    try:
        found = _find_files(filesystem, path)
    except Exception as error:
        raise StorageError(f"Cannot list '{url}': {error}") from error
    if not found:
        raise StorageError(f"No file found at '{url}'.")
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
    entity tag, together with the URL, since these say nothing apart from it; else the content is read.

    Raises:
        StorageError: there is no such file.
    """
    filesystem, path = _filesystem(url, storage_options)
    try:
        info = filesystem.info(path)
    except FileNotFoundError as error:
        raise StorageError(f"No file found at '{url}'.") from error
    except Exception as error:
        raise StorageError(f"Cannot read '{url}': {error}") from error
    if _is_local(filesystem):
        return {"size": info["size"], "sha256": _local_sha256(filesystem, path)}
    if info.get("md5Hash"):
        return {"size": info["size"], "md5": info["md5Hash"]}
    tags = {
        name: str(info[key])
        for name, key in _CONTENT_TAGS
        if info.get(key) is not None and not isinstance(info[key], bool)
    }
    if tags:
        return {"size": info.get("size"), "url": url, **tags}
    return {"sha256": _sha256(filesystem, path)}


_CONTENT_TAGS = (
    ("generation", "generation"),
    ("crc32c", "crc32c"),
    ("etag", "ETag"),
    ("etag", "etag"),
    ("version", "VersionId"),
)


def _filesystem(url: str, storage_options: Mapping[str, Any] | None) -> tuple[Any, str]:
    """Return our own file system for the URL, which caches no listings, and the path in it."""
    import fsspec

    settings = {"use_listings_cache": False, "skip_instance_cache": True, **(storage_options or {})}
    protocol = fsspec.core.split_protocol(url)[0]
    try:
        if protocol in {"gs", "gcs"} and "::" not in url:
            from gcsfs.core import GCSFileSystem

            filesystem = GCSFileSystem(**settings)
            return filesystem, filesystem._strip_protocol(url)  # noqa: SLF001 - fsspec's own contract
        if protocol is None and "::" not in url:
            url = os.path.expanduser(url)  # noqa: PTH111 - a string, since it may be a glob
        filesystem, path = fsspec.core.url_to_fs(url, **settings)
    except (ValueError, ImportError) as error:
        raise StorageError(f"Cannot open '{url}': {error}") from error
    return filesystem, path


def _is_local(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def _local_sha256(filesystem: Any, path: str) -> str:
    """Hash a local file, once for each state of it; one changed just now may change again unseen."""
    state = os.stat(path)  # noqa: PTH116 - fsspec's paths are strings
    key = (path, state.st_size, state.st_mtime_ns)
    if key in _LOCAL_DIGESTS:
        return _LOCAL_DIGESTS[key]
    started = time.time_ns()
    digest = _sha256(filesystem, path)
    if started - state.st_mtime_ns > _SETTLED_AFTER_NS:
        _LOCAL_DIGESTS[key] = digest
    return digest


def _sha256(filesystem: Any, path: str) -> str:
    content = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            content.update(chunk)
    return content.hexdigest()


# The storage that the cache is kept on

_TEMPORARY = ".tmp-"


class Storage(Protocol):
    """What the cache needs of a place to keep objects. Paths are relative, with ``/``."""

    url: str

    def read(self, path: str) -> bytes:
        """Return the whole object; FileNotFoundError where there is none."""

    def read_tail(self, path: str, count: int) -> bytes:
        """Return the object's last ``count`` bytes, or all of a shorter one."""

    def publish(self, path: str, data: bytes) -> None:
        """Write the object so that a reader sees all of it or what was there before."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write the object unless there is one; say whether this call, or an equal one, made it."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return ``{name: bytes}`` of the objects right below the folder."""

    def delete(self, paths: Iterable[str]) -> None:
        """Remove the objects; one that is gone already is no error."""


def open_storage(url: str, storage_options: Mapping[str, Any] | None = None) -> Storage:
    """Open a cache root.

    Args:
        url: a local path, or any fsspec URL (``gs://bucket/prefix``).
        storage_options: given to the fsspec filesystem; never written anywhere.
    """
    if "://" not in url or url.startswith("file://"):
        path = Path(url.removeprefix("file://")).expanduser().absolute()
        return LocalStorage(str(path))
    return ObjectStorage(url.rstrip("/"), dict(storage_options or {}))


@dataclass(frozen=True)
class LocalStorage:
    """A folder on a local or shared disk."""

    url: str

    def read(self, path: str) -> bytes:
        with self._errors("read", path):
            return self._at(path).read_bytes()

    def read_tail(self, path: str, count: int) -> bytes:
        with self._errors("read", path), self._at(path).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
            return file.read()

    def publish(self, path: str, data: bytes) -> None:
        with self._errors("write", path), self._synced_copy(path, data) as temporary:
            temporary.replace(self._at(path))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with self._errors("write", path), self._synced_copy(path, data) as temporary:
            try:
                os.link(temporary, self._at(path))
            except FileExistsError:
                return self._at(path).read_bytes() == data
            return True

    def sizes(self, folder: str) -> dict[str, int]:
        try:
            with self._errors("list", folder), os.scandir(self._at(folder)) as entries:
                return {
                    entry.name: entry.stat().st_size
                    for entry in entries
                    if entry.is_file() and not entry.name.startswith(_TEMPORARY)
                }
        except FileNotFoundError:
            return {}

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            with self._errors("delete", path):
                self._at(path).unlink(missing_ok=True)

    def _at(self, path: str) -> Path:
        return Path(self.url, path)

    @contextmanager
    def _synced_copy(self, path: str, data: bytes) -> Iterator[Path]:
        """A file beside ``path`` that holds ``data`` and has reached the disk; gone afterwards."""
        target = self._at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _errors(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"Cannot {verb} {self._at(path)}: {error}") from error


@dataclass(frozen=True)
class ObjectStorage:
    """A prefix of a bucket, through fsspec. The filesystem is made anew in each process."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStorage, (self.url, self.options)

    @cached_property
    def _fs(self) -> Any:
        return _object_filesystem(self.url, self.options)

    def read(self, path: str) -> bytes:
        with self._errors("read", path):
            return bytes(self._fs.cat_file(self._at(path)))

    def read_tail(self, path: str, count: int) -> bytes:
        with self._errors("read", path):
            return bytes(self._fs.cat_file(self._at(path), start=-count))

    def publish(self, path: str, data: bytes) -> None:
        with self._errors("write", path):
            self._fs.pipe_file(self._at(path), data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with self._errors("write", path):
            try:
                self._fs.pipe_file(self._at(path), data, mode="create")
            except FileExistsError:
                # After a lost reply the client retries and meets its own object: equal content is ours.
                return bytes(self._fs.cat_file(self._at(path))) == data
            return True

    def sizes(self, folder: str) -> dict[str, int]:
        try:
            with self._errors("list", folder):
                found = self._fs.ls(self._at(folder), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in found if entry["type"] == "file"}

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            with self._errors("delete", path), suppress(FileNotFoundError):
                self._fs.rm_file(self._at(path))

    def _at(self, path: str) -> str:
        return f"{self.url}/{path}"

    @contextmanager
    def _errors(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StorageError(f"Cannot {verb} {self._at(path)}: {type(error).__name__}: {error}") from error


def _object_filesystem(url: str, options: Mapping[str, Any]) -> Any:
    """Our own filesystem instance, never one that lists from memory."""
    protocol = url.split("://", 1)[0]
    try:
        if protocol in ("gs", "gcs"):
            import gcsfs

            return gcsfs.core.GCSFileSystem(use_listings_cache=False, skip_instance_cache=True, **options)
        import fsspec

        if protocol == "memory":
            return fsspec.filesystem(protocol)
        return fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        raise StorageError(f"Cannot open {url}: {error}") from error
