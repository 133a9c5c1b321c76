"""What the parts of a cache root hold, as far as they are whole, and what steps have noted of their work."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_ray.cache.paths import PART_ENDING, function_in
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import NO_UNIT, UnitIndex
from distill_ray.cache.units import end_key, offset_key
from distill_ray.storage import open_storage
from tests.integration.pipelines_of_edits import SOURCE, Draft, unit_key

Units = Counter[str]
"""How often each key is there."""


@dataclass
class Part:
    """A part; ``age`` orders parts by when they were seen first."""

    function: str
    index: UnitIndex
    age: int
    whole: bool = True

    def units(self) -> Units:
        """The units that it holds."""
        return Counter(key.hex() for key, _, _ in self.index.units if key != NO_UNIT)

    def answers(self) -> Counter[tuple[str, str, bool]]:
        """For each unit its key, the name of what the step gave, and whether it is a copy of another."""
        found = zip(self.index.units, self.index.copied_from(), range(len(self.index.counts)), strict=True)
        return Counter(
            (key.hex(), (copied or self.index.answer_name(unit, first)).hex(), bool(copied))
            for (key, first, _), copied, unit in found
            if key != NO_UNIT
        )


@dataclass
class StoredUnits:
    """The parts of a root, as they come and go. Who damages one says so."""

    root: Path
    parts: dict[Path, Part] = field(default_factory=dict)
    _age: int = 0

    def look(self) -> None:
        """See which parts there are; each can be read as long as nobody damages it."""
        found = sorted(self.root.glob(f"steps/*/parts/*{PART_ENDING}"), key=_without_run)
        store = CacheStore(open_storage(str(self.root)))
        self._age += 1
        for path in found:
            function = function_in(path.parent.parent.name)
            assert function is not None
            if path not in self.parts:
                table, index = store.read_part(function, path.stem)
                assert table.num_rows == index.rows
                self.parts[path] = Part(function.signature, index, self._age)
        for gone in self.parts.keys() - set(found):
            del self.parts[gone]

    def of(self, function: str, *, damaged: bool = False, since: Iterable[Path] = ()) -> Units:
        """The units of a function, those in merged parts once.

        Args:
            function: its signature.
            damaged: count also those that stand in damaged parts.
            since: parts that do not count.
        """
        parts = {
            path.stem: part
            for path, part in self.parts.items()
            if part.function == function and (part.whole or damaged) and path not in set(since)
        }
        replaced = {name for part in parts.values() for name in part.index.replaces}
        kept = [part for name, part in parts.items() if name not in replaced]
        answers = sum((part.answers() for part in kept), Counter[tuple[str, str, bool]]())
        # A copy is of use in the place of what it was made from, not beside it.
        of_each = {(key, name): answers[key, name, False] or 1 for key, name, _ in answers}
        units = Units()
        for (key, _), count in of_each.items():
            units[key] += count
        return units

    def generated(self, function: str) -> int:
        """How many rows of a generator are stored from the first one on; -1: all of them."""
        parts = [part for part in self.parts.values() if part.function == function and part.whole]
        counts: dict[str, set[int]] = {}
        for part in parts:
            for key, _, rows in part.index.units:
                counts.setdefault(key.hex(), set()).add(rows)
        at = 0
        while len(found := counts.get(offset_key(at).hex(), set())) == 1:
            at += min(found)
        return -1 if end_key(at).hex() in counts else 0 if found else at

    @property
    def functions(self) -> dict[str, Units]:
        """The units of every function that has any."""
        return {name: self.of(name) for name in sorted({part.function for part in self.parts.values()})}

    def in_order(self, folder: str) -> list[Path]:
        """Files below the root that are not empty, in an order that does not depend on when a run began."""
        ages = {path: part.age for path, part in self.parts.items()}
        files = (path for path in self.root.glob(folder) if path.is_file() and path.stat().st_size)
        return sorted(files, key=lambda path: (ages.get(path, 0), _without_run(path), str(path)))


def _without_run(path: Path) -> str:
    """A path without the ids of runs and without digests of content."""
    return re.sub(r"\d{8}T\d{6}-[0-9a-f]{8}", "", re.sub(r"-[0-9a-f]{32}\.", ".", str(path)))


@dataclass
class Work:
    """What steps did in a run, by name.

    Attributes:
        begun: units that a step was given.
        done: units that it came to the end of.
        generated: rows that the source made.
    """

    begun: dict[str, Units] = field(default_factory=dict)
    done: dict[str, Units] = field(default_factory=dict)
    generated: int = 0


def read_work(log: Path, draft: Draft) -> Work:
    """Read what the steps of a draft have written down; a line that a kill cut short does not count."""
    nodes = {node.name: node for node in draft.nodes}
    work = Work({name: Units() for name in nodes}, {name: Units() for name in nodes})
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    for name, what, rows in map(json.loads, lines):
        if name == SOURCE:
            work.generated += rows[1]
            continue
        units = getattr(work, what)[name]
        units.update(unit_key(nodes[name], given) for given in _units_of(rows, rowwise=nodes[name].row_wise))
    return work


def _units_of(inputs: list[list[Any]], *, rowwise: bool) -> list[list[list[Any]]]:
    return [[[row] for row in rows] for rows in zip(*inputs, strict=True)] if rowwise else [inputs]
