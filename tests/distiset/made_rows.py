"""Rows for the tests of data sets: strategies, and parts of a real cache written for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from distill_ray.cache.manifest import Manifest, PartEntry, Segment
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import encode_rows, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.distiset import Dataset
from distill_ray.storage import LocalStorage
from distill_ray.types import Row

FUNCTION = FunctionId("Made", "0" * 64)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "é"]), inner, max_size=2)
    ),
    max_leaves=6,
)
plain_columns = st.fixed_dictionaries(
    {}, optional={"n": st.integers(0, 9) | st.none(), "t": st.text("ab", max_size=2), "f": st.floats()}
)
wild_columns = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)
rows = plain_columns | wild_columns
chunks = st.lists(st.lists(rows, max_size=6), max_size=4)


@dataclass(frozen=True)
class WatchedStorage(LocalStorage):
    """A folder that notes which objects are read whole."""

    reads: list[str] = field(default_factory=list, compare=False)

    def read(self, path: str) -> bytes:
        self.reads.append(path)
        return super().read(path)


@dataclass(frozen=True)
class Made:
    """A data set over parts in a real cache, and the storage that these lie on."""

    dataset: Dataset
    storage: WatchedStorage
    parts: tuple[PartEntry, ...]

    def path(self, part: int) -> Path:
        return Path(self.storage.url, FUNCTION.part(self.parts[part].name))


def make(
    root: Path,
    parts: Sequence[Sequence[Row]],
    segments: Sequence[Segment] | None = None,
    hidden: Sequence[str] = (),
) -> Made:
    """Write each list of rows as a part; the data set has the segments, by default all parts in turn."""
    storage = WatchedStorage(str(root))
    store = CacheStore(storage)
    entries = tuple(_write(store, number, list(rows)) for number, rows in enumerate(parts))
    if segments is None:
        segments = [Segment(number, 0, len(rows)) for number, rows in enumerate(parts)]
    count = sum(segment.rows for segment in segments)
    manifest = Manifest(FUNCTION, "1" * 64, count, "", entries, tuple(segments), {})
    return Made(Dataset.from_cache(store, manifest, "answers", hidden), storage, entries)


def _write(store: CacheStore, number: int, rows: list[Row]) -> PartEntry:
    index = UnitIndex(
        keys=bytes(16 * len(rows)),
        counts=(1,) * len(rows),
        digests=row_digests(rows),
        run="made",
        replaces=(),
        seconds=0.0,
        input_tokens=0,
        output_tokens=0,
    )
    return store.write_part(FUNCTION, f"p{number}", encode_rows(rows), index)


def same(left: Any, right: Any) -> bool:
    """Tell whether two JSON-like values are equal, types included; the order of keys does not count."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return repr(left) == repr(right)
    return bool(left == right)


def as_exported(value: Any) -> Any:
    """What a value is once missing keys and None, and whole numbers and floats, are one."""
    if isinstance(value, dict):
        return {key: as_exported(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [as_exported(item) for item in value]
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    return value
