"""Compaction changes where rows stand, never which rows an output has."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache import paths
from distill_ray.cache.collection import Sweeper, condemn
from distill_ray.cache.compact import Compactor, Place, group, move
from distill_ray.cache.gc import Choice, InUse
from distill_ray.cache.inventory import Root, walk_functions
from distill_ray.cache.live_runs import RunWatcher
from distill_ray.cache.manifest import Manifest, PartEntry, Segment
from distill_ray.cache.runs import read_uses
from distill_ray.cache.store import CacheStore
from distill_ray.cache.units import StoredUnits
from distill_ray.cache.verify import Verifier
from distill_ray.cache.writer import SMALL
from distill_ray.storage import open_storage
from tests.cache.made_cache import (
    FUNCTION,
    key,
    part_names,
    put_merged,
    put_output,
    put_part,
    rows_of,
    run_id,
)
from tests.damage import flip
from tests.gcs_server import GcsRoot

TARGET = 1 << 20


def compact(
    store: CacheStore, in_use: InUse | None = None, target: int = TARGET
) -> tuple[Compactor, list[Choice]]:
    """Compact, and note what may go."""
    compactor = Compactor(target)
    root = Root("", store)
    _, private = read_uses(root, lambda _: None)
    choices = [compactor.compact(each, in_use or InUse()) for each in walk_functions(root, private)]
    for choice in choices:
        condemn(store.storage, choice, now=time.time(), grace=0)
    return compactor, choices


def sweep(store: CacheStore) -> None:
    Sweeper(store.storage, RunWatcher(), lambda _: None).sweep(time.time())


def output(store: CacheStore, name: str = "a") -> Manifest:
    manifest = store.read_manifest(FUNCTION, key(name))
    assert manifest is not None
    return manifest


def is_whole(store: CacheStore) -> bool:
    return not list(Verifier(store.storage, (), lambda _: None).verify(deep=True))


def test_outputs_have_the_same_rows_in_fewer_parts(store: CacheStore) -> None:
    parts = [put_part(store, run_id(20 - number), 10 * number) for number in range(10)]
    before = [
        put_output(store, "all", run_id(1), parts[::-1]),
        put_output(store, "some", run_id(2), [parts[7], parts[1]]),
    ]
    rows = [rows_of(store, manifest) for manifest in before]
    compactor, _ = compact(store)
    assert (compactor.done.merged, compactor.done.written, compactor.done.outputs) == (10, 1, 2)
    for manifest, known in zip(before, rows, strict=True):
        name = "all" if manifest.rows == 50 else "some"
        after = output(store, name)
        assert rows_of(store, after) == known
        assert len(after.parts) == 1
        assert (after.content, after.lineage, after.run) == (manifest.content, manifest.lineage, manifest.run)
    assert len(output(store, "all").segments) == 1, "rows of the largest output follow each other"
    sweep(store)
    assert len(part_names(store)) == 1
    assert is_whole(store)
    assert rows_of(store, output(store, "some")) == rows[1]


def test_every_unit_is_found_as_before(store: CacheStore) -> None:
    for number in range(4):
        put_part(store, run_id(number), 10 * number)
    compact(store)
    sweep(store)
    stored = StoredUnits(store.read_indexes(FUNCTION, store.parts(FUNCTION)))
    assert len(stored) == 20


def test_a_merged_part_is_as_old_as_the_newest_of_those_in_it(store: CacheStore) -> None:
    runs = [run_id(30), run_id(3), run_id(10)]
    for number, run in enumerate(runs):
        put_part(store, run, 10 * number)
    compact(store)
    sweep(store)
    (name,) = part_names(store)
    assert name.startswith(f"{runs[1]}-compact-")


def test_parts_stay_until_the_sweep_and_where_a_run_has_named_them_again(store: CacheStore) -> None:
    parts = [put_part(store, run_id(number), 10 * number) for number in range(3)]
    compact(store)
    assert {part.name for part in parts} < part_names(store)
    again = put_output(store, "b", run_id(), parts[:1])
    sweep(store)
    assert len(part_names(store)) == 2
    assert len(rows_of(store, again)) == 5
    compact(store)
    sweep(store)
    assert len(part_names(store)) == 1, "the next compaction moves that output too"
    assert len(rows_of(store, output(store, "b"))) == 5


def test_large_parts_and_single_small_ones_are_left_alone(store: CacheStore) -> None:
    large = [put_part(store, run_id(number), 1000 * number, 500) for number in range(2)]
    small = put_part(store, run_id(), 5000)
    put_output(store, "a", run_id(), [*large, small])
    compactor, choices = compact(store, target=large[0].size)
    assert compactor.done.written == 0
    assert choices == [Choice()]


def test_what_a_crashed_compaction_left_is_put_right(store: CacheStore) -> None:
    """Killed after the merged part was written: no manifest names it yet."""
    parts = [put_part(store, run_id(9), 10 * number) for number in range(3)]
    manifest = put_output(store, "a", run_id(9), [parts[2], parts[0]])
    rows = rows_of(store, manifest)
    merged = put_merged(store, run_id(8), parts)
    compactor, _ = compact(store)
    assert (compactor.done.written, compactor.done.outputs) == (0, 1)
    sweep(store)
    assert part_names(store) == {merged.name}
    assert rows_of(store, output(store)) == rows


def test_generations_of_merged_parts_are_followed_to_the_last(store: CacheStore) -> None:
    parts = [put_part(store, run_id(9), 10 * number) for number in range(3)]
    manifest = put_output(store, "a", run_id(9), [parts[1], parts[0]])
    rows = rows_of(store, manifest)
    first = put_merged(store, run_id(8), parts[:2])
    last = put_merged(store, run_id(7), [parts[2], first])
    compact(store)
    sweep(store)
    assert part_names(store) == {last.name}
    assert rows_of(store, output(store)) == rows


def test_what_a_live_run_uses_or_wrote_is_left_as_it_is(store: CacheStore) -> None:
    run = run_id()
    for number in range(3):
        put_part(store, run, 10 * number)
    assert compact(store, InUse(frozenset({"x"}), functions=frozenset({FUNCTION.signature})))[1] == [Choice()]
    assert compact(store, InUse(frozenset({run})))[1] == [Choice()]


def test_an_output_of_one_run_is_moved_too(store: CacheStore) -> None:
    run = run_id(1)
    parts = [put_part(store, run, 10 * number) for number in range(3)]
    path = f"{paths.run_folder(run)}/outputs/{key('a')}.json"
    put_output(store, "a", run, parts, path=path)
    compact(store)
    sweep(store)
    manifest = Manifest.from_json(store.storage.read(path), path)
    assert len(manifest.parts) == 1
    assert len(rows_of(store, manifest)) == 15


def test_parts_beside_a_damaged_one_are_left_alone(store: CacheStore) -> None:
    parts = [put_part(store, run_id(), 10 * number) for number in range(3)]
    flip(Path(store.storage.url, FUNCTION.part(parts[1].name)), 40)
    compactor, _ = compact(store)
    assert (compactor.done.damaged, compactor.done.written) == (1, 0)
    assert {parts[0].name, parts[2].name} <= part_names(store)


def test_a_bucket_is_compacted_likewise(gcs_root: GcsRoot) -> None:
    store = CacheStore(open_storage(gcs_root.url, gcs_root.storage_options))
    parts = [put_part(store, run_id(), 10 * number) for number in range(3)]
    rows = rows_of(store, put_output(store, "a", run_id(), parts))
    compact(store)
    sweep(store)
    assert len(part_names(store)) == 1
    assert rows_of(store, output(store)) == rows


@given(sizes=st.lists(st.integers(0, 200)), target=st.integers(1, 100))
def test_groups_hold_each_small_part_once_in_order_and_fit_the_size(sizes: list[int], target: int) -> None:
    parts = [PartEntry(str(number), size) for number, size in enumerate(sizes)]
    groups = group(parts, target)
    grouped = [part for each in groups for part in each]
    assert grouped == [part for part in parts if part in grouped]
    assert all(part.size < target * SMALL for part in grouped)
    assert all(len(each) > 1 and sum(part.size for part in each) <= target for each in groups)
    left = [part for part in parts if part.size < target * SMALL and part not in grouped]
    assert len(left) <= 1 + len(groups), "hardly any small part is left alone"


@given(data=st.data())
def test_a_moved_manifest_gives_the_same_rows_in_the_same_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    segments = data.draw(
        st.lists(st.builds(Segment, st.integers(0, count - 1), st.integers(0, 50), st.integers(0, 5)))
    )
    parts = tuple(PartEntry(f"p{number}", 1) for number in range(count))
    manifest = Manifest(FUNCTION, "k", sum(each.rows for each in segments), "c", parts, tuple(segments), {})
    places = {
        f"p{number}": Place(PartEntry("merged", 9), 1000 * number)
        for number in data.draw(st.sets(st.integers(0, count - 1)))
    }
    moved = move(manifest, places)

    def rows(of: Manifest) -> list[tuple[str, int]]:
        return [
            (of.parts[each.part].name, row)
            for each in of.segments
            for row in range(each.first_row, each.first_row + each.rows)
        ]

    expected = [
        ("merged", places[name].first_row + row) if name in places else (name, row)
        for name, row in rows(manifest)
    ]
    assert rows(moved) == expected
    assert Manifest.from_json(moved.to_json(), "it") == moved


@pytest.mark.parametrize("count", [1, 40])
def test_an_output_stays_a_hit_all_the_time(store: CacheStore, count: int) -> None:
    parts = [put_part(store, run_id(), 10 * number) for number in range(count)]
    put_output(store, "a", run_id(), parts)
    compact(store)
    assert store.missing_parts(output(store)) == []
    sweep(store)
    assert store.missing_parts(output(store)) == []
