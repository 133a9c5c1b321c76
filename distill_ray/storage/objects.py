"""Storage in a bucket, or in any other file system that fsspec knows."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from distill_ray.storage.filesystem import list_folder, open_filesystem, speaks, store_of
from distill_ray.storage.patience import outage_of, persist
from distill_ray.storage.protocol import storage_errors

_DELETERS = 16

_BOUNDARY = b"--==0=="
"""What gcsfs puts around a small object on its way: one that holds it would be refused, or cut there."""

_Result = TypeVar("_Result")


@dataclass
class _Opened:
    """What a process has opened; not compared, and never sent."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    filesystem: Any = None


@dataclass(frozen=True)
class ObjectStorage:
    """A prefix of a bucket.

    Attributes:
        url: such as ``gs://bucket/prefix``.
        options: what the file system needs, such as credentials; sent to other processes, never shown.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    _opened: dict[int, _Opened] = field(default_factory=dict, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStorage, (self.url, self.options)

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        with self._errors("read", path, FileNotFoundError):
            return self._persist(lambda: bytes(self._filesystem.cat_file(self._at(path))))

    def read_tail(self, path: str, count: int) -> bytes:
        """See `Storage.read_tail`."""
        with self._errors("read", path, FileNotFoundError):
            return self._persist(lambda: self._tail(path, count))

    def publish(self, path: str, data: bytes) -> None:
        """See `Storage.publish`."""
        with self._errors("write", path):
            self._persist(lambda: self._send(path, data))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Storage.put_if_absent`."""
        with self._errors("write", path):
            return self._persist(lambda: self._create(path, data))

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Storage.sizes`."""
        return {name: size for name, size in self._list(folder) if size is not None}

    def folders(self, folder: str) -> list[str]:
        """See `Storage.folders`."""
        return sorted(name for name, size in self._list(folder) if size is None)

    def leftovers(self, folder: str) -> dict[str, int]:
        """See `Storage.leftovers`: an object is there once it is whole."""
        del folder
        return {}

    def delete(self, paths: Iterable[str]) -> None:
        """See `Storage.delete`."""
        with ThreadPoolExecutor(_DELETERS) as pool:
            list(pool.map(self._delete, paths))

    def below(self, folder: str) -> ObjectStorage:
        """See `Storage.below`; it shares this one's connections."""
        return replace(self, url=f"{self.url}/{folder}")

    def _tail(self, path: str, count: int) -> bytes:
        filesystem, place = self._filesystem, self._at(path)
        start = -count
        if speaks(filesystem, "abfs"):  # it cannot count from an object's end
            start = max(0, filesystem.info(place)["size"] - count)
        return bytes(filesystem.cat_file(place, start=start))

    def _list(self, folder: str) -> list[tuple[str, int | None]]:
        """What stands right below a folder: one listing with a delimiter."""
        with self._errors("list", folder):
            return self._persist(lambda: list(list_folder(self._filesystem, self._at(folder))))

    def _create(self, path: str, data: bytes) -> bool:
        try:
            self._send(path, data, mode="create")
        except (NotImplementedError, TypeError):  # a file system that knows no such mode
            self._send(path, data)
        except Exception as error:
            if getattr(error, "errno", None) == errno.ENOSYS:  # a store that knows none
                self._send(path, data)
                return True
            # After a lost reply the client tries again and meets its own object, or gives up on a write
            # that was made: what is there now decides.
            try:
                return bytes(self._filesystem.cat_file(self._at(path))) == data
            except FileNotFoundError:
                pass
            except Exception:
                if isinstance(error, FileExistsError):
                    raise  # whose it is could not be seen: it is asked once more
            if isinstance(error, FileExistsError):  # another caller's, removed in the meantime
                return False
            raise
        return True

    def _send(self, path: str, data: bytes, **how: Any) -> None:
        filesystem = self._filesystem
        if _BOUNDARY in data and speaks(filesystem, "gs"):
            how["chunksize"] = len(data)  # the way of large objects, in which nothing is framed
        filesystem.pipe_file(self._at(path), data, **how)

    def _delete(self, path: str) -> None:
        with self._errors("delete", path), suppress(FileNotFoundError):
            self._persist(lambda: self._filesystem.rm_file(self._at(path)))

    @property
    def _filesystem(self) -> Any:
        """This process's own: fsspec's do not work on the other side of a fork."""
        opened = self._opened.setdefault(os.getpid(), _Opened())
        with opened.lock:  # also not one that another thread of the parent held
            if opened.filesystem is None:
                opened.filesystem, _ = open_filesystem(self.url, self.options, token="google_default")  # noqa: S106
        return opened.filesystem

    def _persist(self, act: Callable[[], _Result]) -> _Result:
        return persist(outage_of(store_of(self.url)), act)

    def _at(self, path: str) -> str:
        return f"{self.url}/{path}"

    def _errors(self, verb: str, path: str, *passing: type[Exception]) -> AbstractContextManager[None]:
        return storage_errors(verb, self._at(path), *passing, holding=self.options)
