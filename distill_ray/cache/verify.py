"""Whether a root holds what was written: names and sizes against manifests, and every byte where asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from distill_ray.cache import paths
from distill_ray.cache.in_order import in_order
from distill_ray.cache.inventory import (
    Damage,
    Root,
    StoredFunction,
    StoredOutput,
    Tell,
    holds_anything,
    identify,
    read_record,
    records_below,
    roots,
    walk_functions,
)
from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.part import decode_part
from distill_ray.cache.runs import walk_runs
from distill_ray.errors import CorruptObjectError, StorageError
from distill_ray.storage import Storage

PARTS_AT_ONCE = 4
"""Whole parts that are held in memory at once."""

REPAIRABLE = frozenset(
    {"missing", "truncated", "bit-flipped", "swapped", "corrupt manifest", "corrupt record", "wrong rows"}
)
"""What goes in a repair; what stands where nothing of ours stands is left to its owner."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        place: the root it stands in.
        path: where it stands there.
        kind: ``missing``, ``truncated``, ``bit-flipped``, ``swapped``, ``wrong rows``, ``corrupt manifest``,
            ``corrupt record``, ``unreadable`` or ``foreign``.
        what: what is wrong, in words.
        remove: paths that go in a repair, so that runs compute again what is missing.
    """

    place: str
    path: str
    kind: str
    what: str
    remove: tuple[str, ...] = ()


@dataclass
class Verified:
    """What was looked at.

    Attributes:
        functions: functions.
        outputs: manifests.
        parts: parts.
        size: bytes of the parts.
        records: records of pipelines and runs.
    """

    functions: int = 0
    outputs: int = 0
    parts: int = 0
    size: int = 0
    records: int = 0


class Verifier:
    """Looks a root over, and gives what it finds one by one.

    Args:
        storage: the root.
        others: roots that it is read together with.
        tell: is told what is being looked at.

    Attributes:
        seen: what has been looked at.
    """

    def __init__(self, storage: Storage, others: Iterable[Storage], tell: Tell) -> None:
        self._storage = storage
        self._others = tuple(others)
        self._tell = tell
        self.seen = Verified()

    def verify(self, *, deep: bool) -> Iterator[Finding]:
        """Give all that is wrong.

        Args:
            deep: read every part whole, and compare every digest.
        """
        for root in roots(self._storage, self._others):
            yield from self._records(root)
            private: list[StoredOutput] = []
            for run in walk_runs(root):
                self._tell(f"run {run.run}")
                self.seen.records += 1
                private += run.private
                yield from (_damaged(root, each) for each in run.damaged)
            for folder in root.store.storage.folders(paths.STEPS_FOLDER):
                path = f"{paths.STEPS_FOLDER}/{folder}"
                if identify(root.store, folder) is None and holds_anything(root.store.storage, path):
                    yield Finding(root.place, path, "foreign", "it is the folder of no step function")
            for function in walk_functions(root, private):
                self._tell(f"function {function.function.class_name}")
                yield from self._function(function, deep=deep)

    def _records(self, root: Root) -> Iterator[Finding]:
        """Look at the records of pipelines."""
        for record in in_order(
            lambda path: read_record(root.store, path),
            records_below(root.store.storage, paths.PIPELINES_FOLDER),
        ):
            self.seen.records += 1
            if isinstance(record, Damage):
                yield _damaged(root, record)

    def _function(self, function: StoredFunction, *, deep: bool) -> Iterator[Finding]:
        root = function.root
        self.seen.functions += 1
        self.seen.outputs += len(function.outputs) + len(function.damaged)
        self.seen.parts += len(function.parts)
        self.seen.size += sum(function.parts.values())
        yield from (_damaged(root, each) for each in function.damaged)
        if function.preimage:
            record = read_record(root.store, function.function.signature_file)
            if isinstance(record, Damage):
                yield _damaged(root, record)
        for output in function.outputs:
            yield from _missing(function, output)
        if deep:
            yield from _deep(function)


def repair(storage: Storage, findings: Iterable[Finding]) -> int:
    """Remove what is damaged, so that runs compute it again; return how many objects went."""
    gone = {
        f"{finding.place}/{path}".lstrip("/")
        for finding in findings
        if finding.kind in REPAIRABLE
        for path in finding.remove
    }
    storage.delete(sorted(gone))
    return len(gone)


def _damaged(root: Root, damage: Damage) -> Finding:
    return Finding(root.place, damage.path, damage.kind, damage.what, (damage.path,))


def _missing(function: StoredFunction, output: StoredOutput) -> Iterator[Finding]:
    """Parts of an output that are absent or have another size; the output is not believed either."""
    for part in function.missing(output):
        path = function.function.part(part.name)
        found = function.parts.get(part.name)
        named = f"{output.path} names it with {part.size:,} bytes"
        if found is None:
            yield Finding(function.root.place, path, "missing", named, (output.path,))
        else:
            kind = "truncated" if found < part.size else "swapped"
            what = f"it has {found:,} bytes, and {named}"
            yield Finding(function.root.place, path, kind, what, (path, output.path))


def _deep(function: StoredFunction) -> Iterator[Finding]:
    """Read every part, then see that the manifests name rows that are in them."""
    rows: dict[str, int] = {}
    checks = in_order(lambda part: (part[0], _read(function, *part)), function.parts.items(), PARTS_AT_ONCE)
    for name, found in checks:
        if isinstance(found, int):
            rows[name] = found
            continue
        rests_on = [
            output.path for output in function.outputs if name in {part.name for part in output.parts}
        ]
        path = function.function.part(name)
        yield Finding(function.root.place, path, *found, remove=(path, *rests_on))
    for output in function.outputs:
        if what := _wrong_rows(function, output, rows):
            yield Finding(function.root.place, output.path, "wrong rows", what, (output.path,))


def _read(function: StoredFunction, name: str, size: int) -> int | tuple[str, str]:
    """Read a part whole and compare its digests; give its rows, or what is wrong with it."""
    try:
        try:
            return _rows(function, name, size)
        except CorruptObjectError:  # a fault on the way is no damage
            return _rows(function, name, size)
    except FileNotFoundError:
        return "missing", "it went while the root was looked over"
    except CorruptObjectError as error:
        text = str(error)
        if "another part under this name" in text:
            return "swapped", text
        return ("truncated" if "cut short" in text else "bit-flipped"), text
    except StorageError as error:
        return "unreadable", str(error)


def _rows(function: StoredFunction, name: str, size: int) -> int:
    store = function.root.store
    _, index = decode_part(store.storage.read(function.function.part(name)))
    store.read_footer(function.function, PartEntry(name, size))  # that it is the part of this name
    return index.rows


def _wrong_rows(function: StoredFunction, output: StoredOutput, rows: Mapping[str, int]) -> str:
    """Say which rows a manifest names that its parts do not have; parts not read are passed over."""
    try:
        manifest = Manifest.from_json(function.root.store.storage.read(output.path), output.path)
    except FileNotFoundError:
        return ""
    for segment in manifest.segments:
        part = manifest.parts[segment.part].name
        if segment.first_row + segment.rows > rows.get(part, math.inf):
            return f"it names rows that {part} does not have"
    return ""
