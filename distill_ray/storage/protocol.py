"""What the cache needs of a place to keep objects. `distill_ray.testing` has the suite that proves one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from distill_ray import credentials
from distill_ray.errors import StorageError
from distill_ray.storage.faults import remedy


class Storage(Protocol):
    """A place to keep objects under one root. Paths are relative to it, with ``/``.

    An object can be sent to another process (pickled), and used by several threads at once. What goes
    wrong is a `StorageError` that names the object.
    """

    @property
    def url(self) -> str:
        """The root, as a user would write it; holds no secret."""

    def read(self, path: str) -> bytes:
        """Return the whole object; FileNotFoundError where there is none."""

    def read_tail(self, path: str, count: int) -> bytes:
        """Return the object's last ``count`` bytes, or all of a shorter one; FileNotFoundError likewise."""

    def publish(self, path: str, data: bytes) -> None:
        """Write the object so that a reader sees all of it or what was there before."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write the object unless there is one; say whether what is there now is ``data``.

        Of several callers with different data, at once or one after another, exactly one is told True. Where
        the store cannot do that it replaces what is there, as `publish` does, and tells each of them True.
        """

    def sizes(self, folder: str) -> dict[str, int]:
        """Return ``{name: bytes}`` of the objects right below the folder; none where there is no folder."""

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders right below the folder that hold an object at any depth, sorted.

        A folder left empty on a disk may be among them.
        """

    def leftovers(self, folder: str) -> dict[str, int]:
        """Return ``{name: bytes}`` of what writes have right below the folder before it is an object.

        What is there for longer than any write takes was left by one that was cut off. A store that never
        shows such things has none.
        """

    def delete(self, paths: Iterable[str]) -> None:
        """Remove the objects; one that is gone already is no error."""

    def below(self, folder: str) -> Storage:
        """Return the storage whose root is this folder."""


@contextmanager
def storage_errors(verb: str, place: str, *passing: type[Exception], holding: Any = None) -> Iterator[None]:
    """Turn what a backend raises, but for what is ``passing``, into a `StorageError` that names the place.

    It says what to do about it, as far as that can be told, and no credential that is in ``holding``: a URL,
    options, or several of these.
    """
    try:
        yield
    except StorageError:
        raise
    except passing:
        raise
    except Exception as error:
        secrets = list(credentials.credentials_in(holding))
        text = f"Cannot {verb} {place}: {type(error).__name__}: {error}".rstrip(": ")
        if what_to_do := remedy(error, place.strip("'")):
            text = f"{text.rstrip('.')}. {what_to_do}"
        raise StorageError(credentials.without(text, secrets)) from credentials.cause(error, secrets)
