"""What a cache root holds, as the plan asks for it: outputs that can be believed, units that may be found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.records import (
    FunctionRecord,
    LastRuns,
    has_run_output,
    read_function_record,
    read_last_runs,
)
from distill_ray.cache.store import READERS, CacheStore, missing_among
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import unreplaced
from distill_ray.cache.use_notes import UseNote, is_note
from distill_ray.errors import CorruptObjectError

T = TypeVar("T")


@dataclass
class StoreCatalog:
    """Answers from a cache root.

    Attributes:
        store: the root.
        by_unit: pass over complete outputs, so that everything is looked up unit by unit.
        trusting: believe an output that flows into another step by its manifest alone, for who is about to
            read its parts and mends what is wrong with them.
    """

    store: CacheStore
    by_unit: bool = False
    trusting: bool = False
    _indexes: dict[tuple[FunctionId, PartEntry], UnitIndex] = field(
        default_factory=dict, init=False, repr=False
    )
    _damage: dict[tuple[FunctionId, PartEntry], str] = field(default_factory=dict, init=False, repr=False)
    _notes: dict[FunctionId, frozenset[str]] = field(default_factory=dict, init=False, repr=False)
    _runs: dict[str, LastRuns] = field(default_factory=dict, init=False, repr=False)

    @property
    def damage(self) -> tuple[str, ...]:
        """What is wrong with parts that were passed over since they are not what was written."""
        return tuple(self._damage.values())

    def manifest(
        self, function: FunctionId, output_key: str, *, leaf: bool = True
    ) -> tuple[Manifest | None, str]:
        """Return the output's manifest if it can be believed, else None and why not ("": there is none).

        One read, and a listing: of a ``leaf`` always, of other outputs unless this catalog is ``trusting``.
        """
        if self.by_unit:
            return None, ""
        try:
            manifest = self.store.read_manifest(function, output_key)
        except CorruptObjectError as error:
            return None, f"its manifest is damaged: {error}"
        if manifest is None:
            return None, ""
        if not manifest.parts or (self.trusting and not leaf):
            return manifest, ""
        sizes = self.store.storage.sizes(function.parts_folder)
        self._notes[function] = frozenset(filter(is_note, sizes))
        missing = missing_among(sizes, manifest)
        if missing:
            return None, f"{len(missing)} of its {len(manifest.parts)} parts are gone or cut: {missing[0]}"
        return manifest, ""

    def canonical(self, signature: str) -> str:
        """Return the signature that a function's outputs are stored under: its own, or an older one's."""
        return self.store.settings.canonical(signature)

    def indexes(self, function: FunctionId) -> Sequence[tuple[PartEntry, UnitIndex]]:
        """Return the unit indexes of the parts that any run left of this function; reads each part's once."""
        parts = self.store.parts(function)
        seen = self._indexes.keys() | self._damage.keys()
        unread = [part for part in parts if (function, part) not in seen]
        for part, index in self.store.read_indexes(function, unread):
            self._indexes[function, part] = index
        for part in unread:  # an empty one only hides what another root holds
            if part.size and (function, part) not in self._indexes:
                self._note_damage(function, part)
        known = [(part, self._indexes.get((function, part))) for part in parts]
        return unreplaced((part, index) for part, index in known if index is not None)

    def _note_damage(self, function: FunctionId, part: PartEntry) -> None:
        if damage := self.store.damage(function, part):
            self._damage[function, part] = damage

    def last_runs(self, pipeline: str) -> LastRuns:
        """Return the steps of the pipeline's last runs, as they were when this was first asked."""
        if pipeline not in self._runs:
            self._runs[pipeline] = read_last_runs(self.store.storage, pipeline)
        return self._runs[pipeline]

    def is_noted(self, note: UseNote) -> bool:
        """Whether the root that is written to holds a note; no request where the leaf was listed already."""
        if self.store.own is self.store.storage and note.leaf in self._notes:
            return note.name in self._notes[note.leaf]
        return note.name in self.store.own.sizes(note.leaf.parts_folder)

    def function_record(self, function: FunctionId) -> FunctionRecord | None:
        """Return what a function was made from."""
        return read_function_record(self.store.storage, function)

    def lacks_rows(self, run: str, output_key: str) -> bool:
        """Whether a run kept an output to itself, since rows failed on the way to it."""
        return has_run_output(self.store.storage, run, output_key)


def at_once(ask: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """Ask about several steps at the same time: an object store answers in tens of milliseconds."""
    if len(names) < 2:
        return [ask(name) for name in names]
    with ThreadPoolExecutor(min(READERS, len(names))) as pool:
        return list(pool.map(ask, names))
