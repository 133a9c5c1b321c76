"""Storage on a local or shared disk: every object is a file, written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from distill_ray.storage.protocol import storage_errors

_TEMPORARY = ".tmp-"

_MODE = 0o666
"""What the process's umask is taken from."""

_HAS_DESCRIPTORS = Path("/proc/self/fd").is_dir()

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
        with self._errors("write", path), self._synced_copy(path, data) as copy:
            try:
                copy.link(self._at(path))
            except OSError:  # it stands there already, or the disk has no links
                copy.replace(self._at(path))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Storage.put_if_absent`."""
        with self._errors("write", path), self._synced_copy(path, data) as copy:
            try:
                copy.link(self._at(path))
            except FileExistsError:
                try:
                    return self._at(path).read_bytes() == data
                except FileNotFoundError:  # another caller's, removed in the meantime
                    return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                copy.replace(self._at(path))
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
    def _synced_copy(self, path: str, data: bytes) -> Iterator[_Copy]:
        """A file beside ``path`` that holds ``data`` and has reached the disk; gone afterwards."""
        folder = self._at(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        with _new_copy(folder) as copy:
            copy.fill(data)
            yield copy
            _sync_folder(folder)


@dataclass
class _Copy:
    """An open file that gets its name when it is whole.

    Attributes:
        folder: the folder that it is in.
        descriptor: its number in this process.
        name: the name that it has meanwhile; None: it has none, and is gone with this process.
        data: what it holds.
    """

    folder: Path
    descriptor: int
    name: Path | None
    data: bytes = b""

    def link(self, target: Path) -> None:
        """Give it a name that nothing has.

        Raises:
            OSError: something has it, or the disk has no links.
        """
        if self.name is None:
            folder = os.open(self.folder, os.O_RDONLY)
            try:  # told the folder, Python asks the system to follow the link that stands in /proc
                os.link(f"/proc/self/fd/{self.descriptor}", target.name, dst_dir_fd=folder)
            finally:
                os.close(folder)
        else:
            os.link(self.name, target)

    def replace(self, target: Path) -> None:
        """Put it in the place of what has a name."""
        if self.name is None:
            name = _temporary_name(self.folder)
            try:
                self.link(name)
            except OSError:  # no links: the same once more, in a file that has a name from the start
                with _new_copy(self.folder, _named) as other:
                    other.fill(self.data)
                    other.replace(target)
                return
            self.name = name
        self.name.replace(target)

    def fill(self, data: bytes) -> None:
        """Write what it is to hold, and have that reach the disk."""
        self.data, view = data, memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view) :]
        os.fsync(self.descriptor)


@contextmanager
def _new_copy(folder: Path, make: Callable[[Path], _Copy] | None = None) -> Iterator[_Copy]:
    """A new file without a name, where the disk can do that: whatever kills this process, nothing is left.

    On others it has a name meanwhile.
    """
    copy = make(folder) if make else _nameless(folder) or _named(folder)
    try:
        yield copy
    finally:
        os.close(copy.descriptor)
        if copy.name is not None:
            copy.name.unlink(missing_ok=True)


def _nameless(folder: Path) -> _Copy | None:
    if not (hasattr(os, "O_TMPFILE") and _HAS_DESCRIPTORS):
        return None
    try:
        return _Copy(folder, os.open(folder, os.O_TMPFILE | os.O_RDWR, _MODE), None)
    except OSError:  # where it cannot be written at all, the next try says so
        return None


def _named(folder: Path) -> _Copy:
    name = _temporary_name(folder)
    return _Copy(folder, os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE), name)


def _temporary_name(folder: Path) -> Path:
    return folder / f"{_TEMPORARY}{secrets.token_hex(8)}"


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
