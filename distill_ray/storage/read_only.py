"""A storage that nothing is written to, whatever asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from distill_ray.errors import StorageError
from distill_ray.storage.protocol import Storage


@dataclass(frozen=True)
class ReadOnlyStorage:
    """Another storage, for reading only.

    Attributes:
        storage: the one that is read.
    """

    storage: Storage

    @property
    def url(self) -> str:
        """The root."""
        return self.storage.url

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        return self.storage.read(path)

    def read_tail(self, path: str, count: int) -> bytes:
        """See `Storage.read_tail`."""
        return self.storage.read_tail(path, count)

    def publish(self, path: str, data: bytes) -> None:
        """Refuse: raises StorageError."""
        del data
        self._refuse("write", path)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Refuse: raises StorageError."""
        del data
        self._refuse("write", path)

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Storage.sizes`."""
        return self.storage.sizes(folder)

    def folders(self, folder: str) -> list[str]:
        """See `Storage.folders`."""
        return self.storage.folders(folder)

    def leftovers(self, folder: str) -> dict[str, int]:
        """See `Storage.leftovers`."""
        return self.storage.leftovers(folder)

    def delete(self, paths: Iterable[str]) -> None:
        """Refuse: raises StorageError."""
        for path in paths:
            self._refuse("delete", path)

    def below(self, folder: str) -> ReadOnlyStorage:
        """See `Storage.below`."""
        return ReadOnlyStorage(self.storage.below(folder))

    def _refuse(self, verb: str, path: str) -> NoReturn:
        raise StorageError(f"Cannot {verb} {self.url}/{path}: the root was opened for reading only.")
