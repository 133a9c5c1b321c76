"""Several roots as one: read in order, written to the first only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from distill_ray.storage.protocol import Storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayeredStorage:
    """A storage of one's own before others, which are read and never written to.

    Attributes:
        first: where everything is written, and looked for first.
        others: where an object is looked for after that, in order.
    """

    first: Storage
    others: tuple[Storage, ...]

    @property
    def url(self) -> str:
        """The first root."""
        return self.first.url

    def read(self, path: str) -> bytes:
        """See `Storage.read`: the object of the first root that has it."""
        return self._first_to_have(lambda storage: storage.read(path))

    def read_tail(self, path: str, count: int) -> bytes:
        """See `Storage.read_tail`."""
        return self._first_to_have(lambda storage: storage.read_tail(path, count))

    def publish(self, path: str, data: bytes) -> None:
        """See `Storage.publish`."""
        self.first.publish(path, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Storage.put_if_absent`: only an object of the first root stands in its way."""
        return self.first.put_if_absent(path, data)

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Storage.sizes`: of all roots, each object as it is read."""
        listed = [storage.sizes(folder) for storage in self._all]
        return {name: size for sizes in reversed(listed) for name, size in sizes.items()}

    def folders(self, folder: str) -> list[str]:
        """See `Storage.folders`: of all roots."""
        return sorted(set(chain.from_iterable(storage.folders(folder) for storage in self._all)))

    def leftovers(self, folder: str) -> dict[str, int]:
        """See `Storage.leftovers`: of the first root, the only one that is written to."""
        return self.first.leftovers(folder)

    def delete(self, paths: Iterable[str]) -> None:
        """See `Storage.delete`.

        What another root holds is hidden by an empty object of that name in the first: nobody takes it for
        a part or a record, so that one root's damaged object does not stand in the way of every run.
        """
        gone = list(paths)
        self.first.delete(gone)
        for folder in {_folder(path) for path in gone}:
            names = {path for path in gone if _folder(path) == folder}
            for storage in self.others:
                self._hide(storage, names.intersection(f"{folder}{name}" for name in storage.sizes(folder)))

    def below(self, folder: str) -> LayeredStorage:
        """See `Storage.below`: that folder of every root."""
        return LayeredStorage(self.first.below(folder), tuple(each.below(folder) for each in self.others))

    @property
    def _all(self) -> tuple[Storage, ...]:
        return self.first, *self.others

    def _hide(self, storage: Storage, paths: Iterable[str]) -> None:
        for path in paths:
            _log.warning(
                "%s/%s is not used any more: it stays, and is hidden in %s.", storage.url, path, self.url
            )
            self.first.publish(path, b"")

    def _first_to_have(self, read: Callable[[Storage], bytes]) -> bytes:
        for storage in self._all[:-1]:
            with suppress(FileNotFoundError):
                return read(storage)
        return read(self._all[-1])


def first_of(storage: Storage) -> Storage:
    """The root that is written to, where several are read."""
    return storage.first if isinstance(storage, LayeredStorage) else storage


def others_of(storage: Storage) -> tuple[Storage, ...]:
    """The roots that are only read."""
    return storage.others if isinstance(storage, LayeredStorage) else ()


def _folder(path: str) -> str:
    """The folder with its slash, so that what stands right below the root needs none."""
    return path[: path.rfind("/") + 1]
