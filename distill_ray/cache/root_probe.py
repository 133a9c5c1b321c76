"""Whether another process reaches the very cache root that this one does: each reads what the other wrote."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from distill_ray.cache import paths
from distill_ray.errors import StorageError
from distill_ray.storage import Storage, first_of, others_of

_READERS = 16


@dataclass(frozen=True)
class RootProbe:
    """What was left in a root, for others to read and to answer.

    Attributes:
        storage: the root, or several of which the first is written to.
        token: what was written, and under which name: nobody else knows it.
        folders: what stands in each of the roots that are only read, by its URL.
    """

    storage: Storage
    token: str
    folders: Mapping[str, frozenset[str]]

    @property
    def path(self) -> str:
        """Where the token stands."""
        return paths.probe(self.token)

    def answer_path(self, name: str) -> str:
        """Where the answer of a process with this name stands."""
        return paths.probe(f"{self.token}.{name}")


def leave_probe(storage: Storage) -> RootProbe:
    """Write something into a root that others are to find; remove it with `remove_probe`.

    Raises:
        StorageError: it cannot be written, or another root cannot be read.
    """
    folders = {each.url: frozenset(each.folders("")) for each in others_of(storage)}
    probe = RootProbe(storage, secrets.token_hex(16), folders)
    first_of(storage).publish(probe.path, probe.token.encode())
    return probe


def answer_probe(probe: RootProbe, name: str) -> None:
    """Read what was left, and write an answer: called by the other process, under a name of its own.

    Raises:
        StorageError: this process cannot, or it sees another place under this URL. Nothing was written then.
    """
    first = first_of(probe.storage)
    try:
        found = first.read(probe.path)
    except FileNotFoundError:
        found = b""
    if found != probe.token.encode():
        raise StorageError(f"what stands at {first.url} there is not what the driver sees here")
    for other in others_of(probe.storage):
        if missing := probe.folders[other.url] - set(other.folders("")):
            raise StorageError(f"{other.url} lacks there what the driver sees in it: {', '.join(missing)}")
    first.publish(probe.answer_path(name), _answer(probe, name))


def check_answer(probe: RootProbe, name: str) -> None:
    """Read an answer that was written.

    Raises:
        StorageError: there is none to be seen from here.
    """
    first = first_of(probe.storage)
    try:
        found = first.read(probe.answer_path(name))
    except FileNotFoundError:
        found = b""
    if found != _answer(probe, name):
        raise StorageError(f"what it wrote to {first.url} is not to be seen from the driver")


def remove_probe(probe: RootProbe, names: Iterable[str]) -> None:
    """Remove what was left, and the answers of these names, if there are any."""
    first_of(probe.storage).delete([probe.path, *map(probe.answer_path, names)])


def wrong_answers(probe: RootProbe, names: Iterable[str]) -> dict[str, str]:
    """What is wrong with the answers of those names for which something is."""

    def checked(name: str) -> tuple[str, str]:
        try:
            check_answer(probe, name)
        except StorageError as error:
            return name, str(error)
        return name, ""

    with ThreadPoolExecutor(_READERS) as pool:
        return {name: problem for name, problem in pool.map(checked, names) if problem}


def _answer(probe: RootProbe, name: str) -> bytes:
    return f"{probe.token} {name}".encode()


def remedy(url: str) -> str:
    """What to do about a node that cannot use a root."""
    if "://" not in url:
        return (
            "It is a folder of one machine: give a bucket that all nodes reach (such as "
            "cache_dir='gs://bucket/prefix'), or a folder on a mount that all nodes share."
        )
    return "Every node needs the network, the credentials and the settings with which the driver reaches it."
