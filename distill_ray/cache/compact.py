"""Merges the small parts of a function into few large ones, and lets its outputs rest on these instead.

The order that makes it safe to stop at any point: the merged part, then each manifest that named what it
replaces, then, after the grace period of a collection, the parts that were replaced. A crash leaves parts
whose rows stand in a merged one too, which the next compaction, or a collection, puts right.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from distill_ray.cache.gc import REPLACED, Choice, Condemned, InUse
from distill_ray.cache.in_order import in_order
from distill_ray.cache.inventory import StoredFunction, StoredOutput
from distill_ray.cache.manifest import Manifest, PartEntry, Segment, merge_segments
from distill_ray.cache.rows import concat_tables
from distill_ray.cache.unit_index import UnitIndex, concat_indexes
from distill_ray.cache.writer import SMALL, WriterSettings
from distill_ray.errors import CorruptObjectError

PART_BYTES = WriterSettings.part_bytes
"""Size of a part that is aimed at, as by those who write them."""


@dataclass(frozen=True)
class Place:
    """Where the rows of a part stand now.

    Attributes:
        part: the merged part.
        first_row: their first row in it.
    """

    part: PartEntry
    first_row: int


@dataclass
class Compacted:
    """What was done.

    Attributes:
        merged: parts that were merged.
        written: parts that were written in their place.
        outputs: manifests that rest on these now.
        damaged: groups of parts that were left as they are, since one of them is damaged.
        size: bytes of the parts that go.
    """

    merged: int = 0
    written: int = 0
    outputs: int = 0
    damaged: int = 0
    size: int = 0


def group(parts: Sequence[PartEntry], target: int = PART_BYTES) -> list[list[PartEntry]]:
    """Say which parts are to be merged with each other: small neighbours, up to the size that is aimed at.

    Args:
        parts: in the order of the rows.
        target: bytes that a part is to have.
    """
    groups: list[list[PartEntry]] = [[]]
    size = 0
    for part in parts:
        if part.size >= target * SMALL:
            continue
        if size + part.size > target:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.size
    return [each for each in groups if len(each) > 1]


def move(manifest: Manifest, places: Mapping[str, Place]) -> Manifest:
    """Let a manifest rest on merged parts: the same rows, in the same order."""
    parts: dict[PartEntry, int] = {}
    segments: list[Segment] = []
    for segment in manifest.segments:
        part, first = manifest.parts[segment.part], segment.first_row
        if (place := places.get(part.name)) is not None:
            part, first = place.part, place.first_row + first
        segments.append(Segment(parts.setdefault(part, len(parts)), first, segment.rows))
    return replace(manifest, parts=tuple(parts), segments=merge_segments(segments))


class Compactor:
    """Compacts function after function.

    Args:
        target: bytes that a part is to have.

    Attributes:
        done: what was done so far.
    """

    def __init__(self, target: int = PART_BYTES) -> None:
        self._target = target
        self.done = Compacted()

    def compact(self, function: StoredFunction, in_use: InUse) -> Choice:
        """Merge a function's small parts; give what may be condemned then.

        A function that a live run uses is left as it is.
        """
        mine = {name: size for name, size in function.parts.items() if not in_use.wrote(name)}
        small = [size for size in mine.values() if size < self._target * SMALL]
        if len(small) < 2 or in_use.uses(function.function.signature):
            return Choice()
        places = self._merged_before(function, mine)
        order = _in_order_of_rows(function, mine)
        left = [PartEntry(name, mine[name]) for name in order if name not in places]
        for parts in group(left, self._target):
            places |= self._merge(function, parts)
        for output in function.outputs:
            if any(part.name in places for part in output.parts):
                self._rewrite(function, output, places)
        gone = [name for name in places if name in mine]
        self.done.size += sum(mine[name] for name in gone)
        place, of = function.root.place, function.function
        return Choice(parts=tuple(Condemned(place, of, name, mine[name], REPLACED) for name in gone))

    def _merged_before(self, function: StoredFunction, parts: Mapping[str, int]) -> dict[str, Place]:
        """Where the rows of parts stand that were merged, but not removed."""
        places: dict[str, Place] = {}
        small = [PartEntry(name, size) for name, size in parts.items()]
        for part, found in in_order(lambda part: (part, _replaced(function, part)), small):
            for name, first in found:
                if name in parts:
                    places[name] = Place(part, first)
        # A merged part may itself have been merged.
        return {name: _last(place, places) for name, place in places.items()}

    def _merge(self, function: StoredFunction, parts: Sequence[PartEntry]) -> dict[str, Place]:
        store, of = function.root.store, function.function
        try:
            read = [store.read_part(of, part.name) for part in parts]
        except CorruptObjectError:
            self.done.damaged += 1
            return {}
        names = [part.name for part in parts]
        # As old as the newest of them: what decides by age must not see them age by being merged.
        run = max(index.run for _, index in read)
        index = concat_indexes([index for _, index in read], run, merged=names)
        stem = f"{run}-compact-{secrets.token_hex(4)}"
        merged = store.write_part(of, stem, concat_tables([table for table, _ in read]), index)
        self.done.merged += len(parts)
        self.done.written += 1
        return {name: Place(merged, first) for name, first in _places(index) if name in names}

    def _rewrite(self, function: StoredFunction, output: StoredOutput, places: Mapping[str, Place]) -> None:
        storage = function.root.store.storage
        try:
            manifest = Manifest.from_json(storage.read(output.path), output.path)
        except FileNotFoundError:  # removed meanwhile
            return
        storage.publish(output.path, move(manifest, places).to_json())
        self.done.outputs += 1


def _in_order_of_rows(function: StoredFunction, parts: Iterable[str]) -> list[str]:
    """Parts as outputs name them, the largest output first; then those that no output names."""
    outputs = sorted(function.outputs, key=lambda output: -output.rows)
    named = dict.fromkeys(part.name for output in outputs for part in output.parts)
    known = set(parts)
    return [name for name in named if name in known] + sorted(known - named.keys())


def _replaced(function: StoredFunction, part: PartEntry) -> list[tuple[str, int]]:
    index = function.root.store.read_index(function.function, part)
    return [] if index is None else list(_places(index))


def _places(index: UnitIndex) -> Iterator[tuple[str, int]]:
    """First row of each part that was merged into one."""
    return ((name, first) for name, (first, _) in zip(index.replaces, index.replaced_rows, strict=False))


def _last(place: Place, places: Mapping[str, Place]) -> Place:
    while (after := places.get(place.part.name)) is not None:
        place = Place(after.part, after.first_row + place.first_row)
    return place
