"""What a cache root holds, walked function by function: many listings at once, and only names in memory.

A root may hold others (`paths.SUBROOT_FOLDERS`); each is walked like the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import orjson

from distill_ray.cache import paths
from distill_ray.cache.in_order import in_order
from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.store import READERS, CacheStore, parts_among
from distill_ray.cache.use_notes import is_note
from distill_ray.errors import CorruptObjectError
from distill_ray.storage import Storage

Tell = Callable[[str], None]
"""Is told what has been looked at, for a progress display."""


@dataclass(frozen=True)
class Root:
    """A root, or one within it.

    Attributes:
        place: its path from the first root; empty for that.
        store: what it holds.
        others: roots that it is read together with: its manifests may name parts of theirs.
    """

    place: str
    store: CacheStore
    others: tuple[Storage, ...] = ()

    def path(self, path: str) -> str:
        """A path of this root as one of the first."""
        return f"{self.place}/{path}" if self.place else path


@dataclass(frozen=True)
class StoredOutput:
    """A manifest, without its segments.

    Attributes:
        path: where it stands in its root.
        size: bytes of it.
        function: the step function that made it.
        output_key: what it was made from.
        rows: number of rows.
        run: the run that wrote it.
        seconds: seconds of computing that its rows took.
        input_tokens: tokens that models read for it.
        output_tokens: tokens that models wrote for it.
        parts: the parts it rests on.
        private: whether it belongs to one run only, since it holds failed rows.
    """

    path: str
    size: int
    function: FunctionId
    output_key: str
    rows: int
    run: str
    seconds: float
    input_tokens: int
    output_tokens: int
    parts: tuple[PartEntry, ...]
    private: bool = False


@dataclass(frozen=True)
class Damage:
    """Something that is not what was written.

    Attributes:
        path: where it stands in its root.
        kind: what is wrong, in one word or two.
        what: what is wrong, in words.
    """

    path: str
    kind: str
    what: str


@dataclass(frozen=True)
class StoredFunction:
    """All that is stored of one step function.

    Attributes:
        root: where.
        function: which.
        parts: bytes of each part, by name.
        outputs: its outputs, those of one run only too.
        damaged: manifests that cannot be read.
        preimage: bytes of what its signature was made from; 0: there is none.
        elsewhere: bytes of parts in the roots that this one is read together with.
        notes: paths of the notes that stand beside the parts.
    """

    root: Root
    function: FunctionId
    parts: Mapping[str, int]
    outputs: tuple[StoredOutput, ...]
    damaged: tuple[Damage, ...]
    preimage: int
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its parts and manifests."""
        own = sum(output.size for output in self.outputs if not output.private)
        return sum(self.parts.values()) + own + self.preimage

    def loose(self) -> set[str]:
        """Names of the parts that no output rests on."""
        return self.parts.keys() - {part.name for output in self.outputs for part in output.parts}

    def missing(self, output: StoredOutput) -> tuple[PartEntry, ...]:
        """The parts of an output that are absent or have another size."""
        return tuple(
            part
            for part in output.parts
            if part.size not in (self.parts.get(part.name), self.elsewhere.get(part.name))
        )


def roots(storage: Storage, others: Iterable[Storage] = (), place: str = "") -> Iterator[Root]:
    """Give the root and those within it."""
    others = tuple(others)
    yield Root(place, CacheStore(storage), others)
    for kind in paths.SUBROOT_FOLDERS:
        for name in storage.folders(kind):
            folder = f"{kind}/{name}"
            below = [other.below(folder) for other in others]
            yield from roots(storage.below(folder), below, f"{place}/{folder}".lstrip("/"))


def walk_functions(root: Root, private: Iterable[StoredOutput] = ()) -> Iterator[StoredFunction]:
    """Give each function of a root.

    Args:
        root: the root.
        private: outputs that belong to one run only, which stand elsewhere.
    """
    others: Mapping[FunctionId, list[StoredOutput]] = defaultdict(list)
    for output in private:
        others[output.function].append(output)
    with ThreadPoolExecutor(READERS) as readers:

        def read(folder: str) -> StoredFunction | None:
            function = identify(root.store, folder)
            return None if function is None else read_function(root, function, readers, others[function])

        for found in in_order(read, root.store.storage.folders(paths.STEPS_FOLDER)):
            # A disk keeps the folders of what was removed.
            if found is not None and (found.size or found.outputs or found.damaged):
                yield found


def read_function(
    root: Root,
    function: FunctionId,
    readers: ThreadPoolExecutor,
    private: Iterable[StoredOutput] = (),
) -> StoredFunction:
    """Read what is stored of one function: three listings, and its manifests."""
    storage = root.store.storage
    sizes = storage.sizes(function.outputs_folder)
    # An empty one hides that of another root, and is none itself.
    manifests = record_paths(function.outputs_folder, [name for name, size in sizes.items() if size])
    # Manifests before parts: a part is there before the manifest that names it.
    outputs, damaged = sort_out(readers.map(lambda path: read_output(root.store, path), manifests))
    wrong = [output for output in outputs if output.function != function]
    stored = storage.sizes(function.parts_folder)
    return StoredFunction(
        root=root,
        function=function,
        parts={part.name: part.size for part in parts_among(stored) if part.size},
        outputs=(*(output for output in outputs if output.function == function), *private),
        damaged=(*damaged, *(_misplaced(output.path) for output in wrong)),
        preimage=storage.sizes(function.folder).get(paths.SIGNATURE_FILE, 0),
        elsewhere={
            part.name: part.size for other in root.others for part in CacheStore(other).parts(function)
        },
        notes=tuple(f"{function.parts_folder}/{name}" for name in filter(is_note, stored)),
    )


def read_output(store: CacheStore, path: str, *, private: bool = False) -> StoredOutput | Damage | None:
    """Read a manifest without its segments; None where it is gone by now."""
    try:
        data = store.storage.read(path)
        manifest = Manifest.from_json(data, path)
    except FileNotFoundError:
        return None
    except CorruptObjectError as error:
        return Damage(path, "corrupt manifest", str(error))
    if not path.endswith(f"/{paths.safe_name(manifest.output_key)}{paths.RECORD_ENDING}"):
        return _misplaced(path)
    return StoredOutput(
        path=path,
        size=len(data),
        function=manifest.function,
        output_key=manifest.output_key,
        rows=manifest.rows,
        run=manifest.run,
        seconds=manifest.seconds,
        input_tokens=manifest.input_tokens,
        output_tokens=manifest.output_tokens,
        parts=manifest.parts,
        private=private,
    )


def identify(store: CacheStore, folder: str) -> FunctionId | None:
    """Name the function whose folder, right below ``steps``, this is; None: it is no function's."""
    if (function := paths.function_in(folder)) is not None:
        return function
    # A class whose name is no path element: its preimage says what it is called.
    record = read_record(store, paths.signature_file_in(folder))
    if not isinstance(record, dict) or not isinstance(record.get("class"), str):
        return None
    function = FunctionId(record["class"], folder.rpartition("-")[2])
    return function if function.folder == f"{paths.STEPS_FOLDER}/{folder}" else None


def holds_anything(storage: Storage, folder: str) -> bool:
    """Whether an object stands in a folder, however deep; a disk keeps folders that were emptied."""
    if storage.sizes(folder):
        return True
    return any(holds_anything(storage, f"{folder}/{name}") for name in storage.folders(folder))


def records_below(storage: Storage, folder: str) -> Iterator[str]:
    """Give the paths of the records in a folder, however deep."""
    yield from record_paths(folder, storage.sizes(folder))
    for name in storage.folders(folder):
        yield from records_below(storage, f"{folder}/{name}")


def read_record(store: CacheStore, path: str) -> dict[str, Any] | Damage | None:
    """Read a JSON object; None where it is gone by now."""
    try:
        record = orjson.loads(store.storage.read(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        return Damage(path, "corrupt record", f"it is no JSON: {error}")
    return record if isinstance(record, dict) else Damage(path, "corrupt record", "it is no JSON object")


def record_paths(folder: str, sizes: Iterable[str]) -> list[str]:
    """Give the paths of the records among what stands in a folder."""
    return [f"{folder}/{name}" for name in sorted(sizes) if name.endswith(paths.RECORD_ENDING)]


def sort_out(found: Iterable[StoredOutput | Damage | None]) -> tuple[list[StoredOutput], list[Damage]]:
    """Give the outputs, and those that could not be read."""
    outputs: list[StoredOutput] = []
    damaged: list[Damage] = []
    for each in found:
        if isinstance(each, Damage):
            damaged.append(each)
        elif each is not None:
            outputs.append(each)
    return outputs, damaged


def _misplaced(path: str) -> Damage:
    return Damage(path, "swapped", "it is the manifest of another output")
