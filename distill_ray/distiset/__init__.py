"""What a run gives: leaf -> split -> rows, read lazily from the parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distill_ray.cache.manifest import Manifest
from distill_ray.cache.rows import decode_rows
from distill_ray.cache.store import CacheStore
from distill_ray.observe.report import RunReport
from distill_ray.types import Row


class LeafDataset:
    """The rows of one leaf: iterated part by part, or all at once with `to_list`."""

    def __init__(self, store: CacheStore, manifest: Manifest, hidden: Sequence[str] = ()) -> None:
        self._store = store
        self._manifest = manifest
        self._hidden = frozenset(hidden)
        self._rows: list[Row] | None = None

    def __len__(self) -> int:
        return self._manifest.rows

    def __iter__(self) -> Iterator[Row]:
        if self._rows is not None:
            yield from self._rows
            return
        read: tuple[int, Any] | None = None
        for segment in self._manifest.segments:
            if read is None or read[0] != segment.part:
                part = self._manifest.parts[segment.part]
                read = segment.part, self._store.read_part(self._manifest.function, part.name)[0]
            for row in decode_rows(read[1].slice(segment.first_row, segment.rows)):
                yield {key: value for key, value in row.items() if key not in self._hidden}

    def to_list(self) -> list[Row]:
        """All rows."""
        return list(self)

    def hold(self) -> None:
        """Read all rows into memory, for when their parts are about to go."""
        self._rows = self.to_list()


class Distiset(dict[str, dict[str, LeafDataset]]):
    """Leaf -> split -> rows; a single leaf is named ``"default"``.

    Attributes:
        report: the record of the run.
    """

    report: RunReport

    @classmethod
    def from_run(
        cls, store: CacheStore, leaves: Mapping[str, Manifest], report: RunReport, hidden: Sequence[str] = ()
    ) -> Distiset:
        """Hand out the leaves of a finished run."""
        distiset = cls()
        distiset.report = report
        for name, manifest in leaves.items():
            leaf = "default" if len(leaves) == 1 else name
            distiset[leaf] = {"train": LeafDataset(store, manifest, hidden)}
        return distiset

    def in_memory(self) -> Distiset:
        """The same, with all rows read."""
        for splits in self.values():
            for dataset in splits.values():
                dataset.hold()
        return self

    def __repr__(self) -> str:
        leaves = {leaf: {split: len(rows) for split, rows in splits.items()} for leaf, splits in self.items()}
        return f"Distiset({leaves})"
