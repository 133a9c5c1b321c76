"""Storage on a local or shared disk: every object is a file, written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from distill_ray.storage.protocol import storage_errors

_TEMPORARY = ".tmp-"

_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
"""What a disk without hard links says: FAT, some network shares and most buckets mounted as folders."""


@dataclass(frozen=True)
class LocalStorage:
    """A folder on a local or shared disk.

    Attributes:
        url: the folder's absolute path.
    """

    url: str

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        with self._errors("read", path, FileNotFoundError):
            return self._at(path).read_bytes()

    def read_tail(self, path: str, count: int) -> bytes:
        """See `Storage.read_tail`."""
        with self._errors("read", path, FileNotFoundError), self._at(path).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
            return file.read()

    def publish(self, path: str, data: bytes) -> None:
        """See `Storage.publish`."""
        with self._errors("write", path), self._synced_copy(path, data) as temporary:
            temporary.replace(self._at(path))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Storage.put_if_absent`."""
        with self._errors("write", path), self._synced_copy(path, data) as temporary:
            try:
                os.link(temporary, self._at(path))
            except FileExistsError:
                try:
                    return self._at(path).read_bytes() == data
                except FileNotFoundError:  # another caller's, removed in the meantime
                    return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                temporary.replace(self._at(path))
            return True

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Storage.sizes`."""
        return {name: size for name, size in self._files(folder).items() if not name.startswith(_TEMPORARY)}

    def folders(self, folder: str) -> list[str]:
        """See `Storage.folders`."""
        with self._errors("list", folder), self._entries(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def leftovers(self, folder: str) -> dict[str, int]:
        """See `Storage.leftovers`."""
        return {name: size for name, size in self._files(folder).items() if name.startswith(_TEMPORARY)}

    def delete(self, paths: Iterable[str]) -> None:
        """See `Storage.delete`."""
        for path in paths:
            with self._errors("delete", path):
                self._at(path).unlink(missing_ok=True)

    def below(self, folder: str) -> LocalStorage:
        """See `Storage.below`."""
        return replace(self, url=f"{self.url}/{folder}")

    def _files(self, folder: str) -> dict[str, int]:
        with self._errors("list", folder), self._entries(folder) as entries:
            found = ((entry.name, _file_size(entry)) for entry in entries)
            return {name: size for name, size in found if size is not None}

    @contextmanager
    def _entries(self, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        """What stands right below a folder; nothing where there is none."""
        try:
            entries = os.scandir(self._at(folder))
        except FileNotFoundError:
            yield iter(())
            return
        with entries:
            yield entries

    def _at(self, path: str) -> Path:
        return Path(self.url, path)

    def _errors(self, verb: str, path: str, *passing: type[Exception]) -> AbstractContextManager[None]:
        return storage_errors(verb, str(self._at(path)), *passing)

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
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _file_size(entry: os.DirEntry[str]) -> int | None:
    """Bytes of a file; None for what is no file, or was removed while the folder was listed."""
    try:
        return entry.stat().st_size if entry.is_file() else None
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    """Have a new name in the folder reach the disk: what is said to be stored outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
