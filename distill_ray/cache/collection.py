"""Removes what was chosen to go: manifests at once, parts when no run can believe in them any more.

A run that began before its manifest went may still read an output. So parts are condemned first, in records
that stand in the root, and a sweep, after a grace period, looks again: at the manifests, since a run may have
named the parts anew, and at the runs that live.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from distill_ray.cache import paths
from distill_ray.cache.condemned import (
    Clutter,
    Parts,
    Record,
    make_records,
    read_condemned,
    record_names,
)
from distill_ray.cache.gc import Choice, InUse
from distill_ray.cache.inventory import Root, StoredOutput, Tell, read_function, roots
from distill_ray.cache.live_runs import RunWatcher
from distill_ray.cache.root_settings import read_settings
from distill_ray.cache.runs import walk_runs
from distill_ray.cache.stock import is_of_other_salt, read_lease
from distill_ray.cache.store import READERS
from distill_ray.cache.use_notes import is_past
from distill_ray.storage import Storage

WRITE_SECONDS = 3600.0
"""No write takes longer: what is left of one after that goes even though runs live."""


@dataclass
class Swept:
    """What a sweep came to.

    Attributes:
        removed: objects that were removed.
        freed: bytes that came free.
        named_again: parts that stay, since a manifest names them again.
        in_use: objects that stay for now, since runs live that may use them.
        waiting: bytes whose grace period has not passed.
        due_in: seconds until the last of these may go.
    """

    removed: int = 0
    freed: int = 0
    named_again: int = 0
    in_use: int = 0
    waiting: int = 0
    due_in: float = 0.0


def condemn(
    storage: Storage,
    choice: Choice,
    clutter: Sequence[Clutter] = (),
    *,
    now: float,
    grace: float,
) -> None:
    """Note what is to go, and remove the manifests among it."""
    for record in make_records(choice.parts, clutter, now, grace):
        record.write(storage)
    storage.delete(f"{each.place}/{each.name}".lstrip("/") for each in choice.outputs)


class Sweeper:
    """Removes what has been condemned for long enough.

    Args:
        storage: the root.
        watcher: tells which runs live.
        tell: is told what is being removed.
    """

    def __init__(self, storage: Storage, watcher: RunWatcher, tell: Tell) -> None:
        self._storage = storage
        self._watcher = watcher
        self._tell = tell

    def sweep(self, now: float) -> Swept:
        """Remove what may go by now.

        Args:
            now: seconds since 1970.
        """
        swept = Swept()
        due: list[str] = []
        for record in self._records(record_names(self._storage)):
            left = record.at + record.grace - now
            if left > 0:
                swept.waiting += record.size
                swept.due_in = max(swept.due_in, left)
            else:
                due.append(record.name)
        if due:
            everything = {root.place: root for root in roots(self._storage)}
            in_use = self._watcher.look(everything.values())
            round_ = _Round(self._storage, everything, in_use, now, swept)
            for record in self._records(due):
                self._tell(f"record {record.name}")
                round_.clear(record)
        return swept

    def _records(self, names: Iterable[str]) -> Iterator[Record]:
        found = (read_condemned(self._storage, name) for name in names)
        return (record for record in found if record is not None)


class _Round:
    """One sweep: what is in use does not change within it."""

    def __init__(
        self, storage: Storage, everything: dict[str, Root], in_use: InUse, now: float, swept: Swept
    ) -> None:
        self._storage = storage
        self._roots = everything
        self._in_use = in_use
        self._now = now
        self._swept = swept
        self._private: dict[str, dict[str, list[StoredOutput]]] = {}

    def clear(self, record: Record) -> None:
        """Remove what a record names; what must stay for now stays in it."""
        parts = [left for each in record.parts if (left := self._clear_parts(each)) is not None]
        clutter = [each for each in record.clutter if not self._clear_clutter(each, record.at)]
        if parts or clutter:
            record.model_copy(update={"parts": tuple(parts), "clutter": tuple(clutter)}).write(self._storage)
        else:
            self._storage.delete([paths.condemned_record(record.name)])

    def _clear_parts(self, parts: Parts) -> Parts | None:
        """Remove parts of a function that no manifest names; give those that must wait for a live run."""
        root = self._roots.get(parts.place)
        if root is None:
            return None
        if self._in_use.uses(parts.signature):
            self._swept.in_use += len(parts.sizes)
            return parts
        with ThreadPoolExecutor(READERS) as readers:
            private = self._private_of(root).get(parts.signature, [])
            function = read_function(root, parts.function, readers, private)
        named = {part.name for output in function.outputs for part in output.parts}
        there = parts.sizes.keys() & function.parts.keys()
        written = {name for name in there if self._in_use.wrote(name)}
        gone = there - named - written
        self._swept.named_again += len(there & named)
        self._swept.in_use += len(written - named)
        self._remove(root, {parts.function.part(name): parts.sizes[name] for name in gone})
        if not function.outputs and not function.damaged and function.parts.keys() == gone:
            rest = (parts.function.signature_file, *function.notes)
            self._storage.delete(root.path(path) for path in rest)
        else:
            self._storage.delete(root.path(path) for path in function.notes if is_past(path, self._now))
        left = {name: parts.sizes[name] for name in written - named}
        return parts.model_copy(update={"sizes": left}) if left else None

    def _clear_clutter(self, clutter: Clutter, since: float) -> bool:
        """Remove it; False where it must stay for now."""
        root = self._roots.get(clutter.place)
        if root is None:
            return True
        if clutter.kind == "root":
            return self._clear_root(root)
        if clutter.kind == "leftover":
            waits = bool(self._in_use.runs) and self._now - since < WRITE_SECONDS
        else:  # a lease may be another run's by now
            run = read_lease(root, clutter.path) if clutter.kind == "lease" else clutter.run
            waits = run in self._in_use.runs
        if waits:
            self._swept.in_use += 1
            return False
        self._remove(root, {clutter.path: clutter.size})
        return True

    def _clear_root(self, root: Root) -> bool:
        """Remove all of a root within the root, unless its salt is back, or a run lives in it.

        Roots within that one are condemned by themselves: a run may live there.
        """
        storage = root.store.storage
        if not is_of_other_salt(root.place, read_settings(self._storage).salt):
            return True
        if self._in_use.runs.intersection(storage.folders(paths.RUNS_FOLDER)):
            self._swept.in_use += 1
            return False
        own = [name for name in storage.folders("") if name not in paths.SUBROOT_FOLDERS]
        for folder in (*(below for name in own for below in _folders_below(storage, name)), ""):
            self._remove(root, {f"{folder}/{name}".lstrip("/"): size for name, size in _all(storage, folder)})
        return True

    def _remove(self, root: Root, sizes: dict[str, int]) -> None:
        root.store.storage.delete(sizes)
        self._swept.removed += len(sizes)
        self._swept.freed += sum(sizes.values())

    def _private_of(self, root: Root) -> dict[str, list[StoredOutput]]:
        if root.place not in self._private:
            by_function: dict[str, list[StoredOutput]] = defaultdict(list)
            for run in walk_runs(root):
                for output in run.private:
                    by_function[output.function.signature].append(output)
            self._private[root.place] = by_function
        return self._private[root.place]


def _folders_below(storage: Storage, folder: str) -> Iterator[str]:
    """A folder and every one below it, those that lie deeper first."""
    for name in storage.folders(folder):
        yield from _folders_below(storage, f"{folder}/{name}")
    yield folder


def _all(storage: Storage, folder: str) -> list[tuple[str, int]]:
    return [*storage.sizes(folder).items(), *storage.leftovers(folder).items()]
