"""A cache root gives back what was put there, and takes nothing else for it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.manifest import Manifest, PartEntry, Segment
from distill_ray.cache.paths import FunctionId, pipeline_record
from distill_ray.cache.rows import decode_rows, encode_rows, row_digests
from distill_ray.cache.store import TAIL, CacheStore
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import StoredUnits
from distill_ray.errors import CorruptObjectError
from distill_ray.storage import open_storage
from tests.damage import cut, flip
from tests.gcs_server import GcsRoot

FUNCTION = FunctionId("Step", "f" * 64)
OTHER = FunctionId("Step", "0" * 64)
KEY = "k" * 64
ROWS: list[dict[str, Any]] = [{"text": "one"}, {"text": "two"}, {"n": 3}]


@pytest.fixture
def catalog(store: CacheStore) -> StoreCatalog:
    return StoreCatalog(store)


def index_of(rows: list[dict[str, Any]], run: str = "run", replaces: tuple[str, ...] = ()) -> UnitIndex:
    return UnitIndex(b"k" * 16, (len(rows),), row_digests(rows), run, replaces, 0.0, 0, 0)


def write_part(store: CacheStore, stem: str = "run-000-00001", rows: Any = ROWS, **about: Any) -> PartEntry:
    return store.write_part(FUNCTION, stem, encode_rows(rows), index_of(rows, **about))


def manifest_of(*parts: PartEntry, run: str = "run", function: FunctionId = FUNCTION) -> Manifest:
    segments = tuple(Segment(number, 0, 3) for number in range(len(parts)))
    return Manifest(function, KEY, 3 * len(parts), "c" * 64, parts, segments, {KEY: "c" * 64}, run)


def file_of(store: CacheStore, path: str) -> Path:
    return Path(store.storage.url, path)


# Parts.


def test_a_part_is_named_by_its_content(store: CacheStore) -> None:
    one, same, other = write_part(store), write_part(store), write_part(store, rows=ROWS[:1])
    assert one == same
    assert one.name != other.name
    assert one.name.startswith("run-000-00001-")
    assert store.parts(FUNCTION) == sorted([one, other], key=lambda part: part.name)


def test_a_part_is_read_back(store: CacheStore) -> None:
    entry = write_part(store)
    table, index = store.read_part(FUNCTION, entry.name)
    assert decode_rows(table) == ROWS
    assert index == index_of(ROWS)
    assert store.read_indexes(FUNCTION, [entry]) == [(entry, index)]


def test_a_long_index_is_read_from_the_footer_too(store: CacheStore) -> None:
    rows = [{"n": n} for n in range(2 * TAIL // 16)]
    entry = write_part(store, rows=rows)
    ((_, index),) = store.read_indexes(FUNCTION, [entry])
    assert index == index_of(rows)


def test_a_part_that_is_gone_says_so_and_what_to_do(store: CacheStore) -> None:
    entry = write_part(store)
    store.delete_parts(FUNCTION, [entry.name])
    with pytest.raises(CorruptObjectError, match=r"is gone\."):
        store.read_part(FUNCTION, entry.name)
    assert store.read_indexes(FUNCTION, [entry]) == []


@pytest.mark.parametrize("position", [0, 4, 30, -1, -5, -100, -400])
def test_a_damaged_part_is_never_returned_and_the_next_run_makes_it_again(
    store: CacheStore, catalog: StoreCatalog, position: int
) -> None:
    entry = write_part(store)
    store.write_manifest(manifest_of(entry), replace=False)
    flip(file_of(store, FUNCTION.part(entry.name)), position)
    assert catalog.manifest(FUNCTION, KEY)[0] is not None  # its name and size are all that a plan sees
    with pytest.raises(CorruptObjectError, match=r"is damaged: .* It was removed\."):
        store.read_part(FUNCTION, entry.name)
    believed, why = catalog.manifest(FUNCTION, KEY)
    assert believed is None
    assert why == f"1 of its 1 parts are gone or cut: {entry.name}"
    assert catalog.indexes(FUNCTION) == []


def test_damage_of_the_rows_alone_leaves_the_index_but_not_the_part(store: CacheStore) -> None:
    entry = write_part(store)
    flip(file_of(store, FUNCTION.part(entry.name)), 10)
    assert len(store.read_indexes(FUNCTION, [entry])) == 1
    with pytest.raises(CorruptObjectError):
        store.read_part(FUNCTION, entry.name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(size=st.integers(0, 10_000), extra=st.binary(max_size=3))
def test_a_torn_part_is_as_if_it_were_not_there(
    store: CacheStore, catalog: StoreCatalog, size: int, extra: bytes
) -> None:
    whole = write_part(store, "run-000-00002", ROWS[:1])
    entry = write_part(store)
    path = file_of(store, FUNCTION.part(entry.name))
    data = path.read_bytes()
    torn = data[: min(size, len(data) - 1)] + extra
    path.write_bytes(torn)
    if torn != data:
        assert [part.name for part, _ in catalog.indexes(FUNCTION)] == [whole.name]


def test_a_part_under_another_parts_name_is_not_believed(store: CacheStore) -> None:
    one, other = write_part(store), write_part(store, rows=[{"text": "ONE"}, {"text": "two"}, {"n": 3}])
    data = store.storage.read(FUNCTION.part(other.name))
    store.storage.publish(FUNCTION.part(one.name), data)
    assert store.read_indexes(FUNCTION, [one]) == []
    with pytest.raises(CorruptObjectError, match="another part under this name"):
        store.read_part(FUNCTION, one.name)
    assert decode_rows(store.read_part(FUNCTION, other.name)[0])[0] == {"text": "ONE"}


def test_a_part_of_another_function_is_not_believed(store: CacheStore, catalog: StoreCatalog) -> None:
    entry = write_part(store)
    store.storage.publish(OTHER.part(entry.name), store.storage.read(FUNCTION.part(entry.name)))
    assert catalog.indexes(OTHER) == []
    with pytest.raises(CorruptObjectError, match="another part under this name"):
        store.read_part(OTHER, entry.name)


def test_foreign_files_among_the_parts_are_passed_over(store: CacheStore, catalog: StoreCatalog) -> None:
    entry = write_part(store)
    folder = file_of(store, FUNCTION.parts_folder)
    table = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), table)
    foreign = {
        "theirs.parquet": table.getvalue(),
        "copy.parquet": store.storage.read(FUNCTION.part(entry.name)),
        "empty.parquet": b"",
        "short.parquet": b"PAR1",
        "notes.txt": b"hello",
        ".DS_Store": b"x",
        ".tmp-1234": b"half a part",
        "a name of theirs é\n.parquet": b"PAR1" * 10,
        f"{'x' * 200}.parquet": b"\xff\xff\xff\xffPAR1",
    }
    for name, data in foreign.items():
        (folder / name).write_bytes(data)
    (folder / "folder.parquet").mkdir()
    assert [part for part, _ in catalog.indexes(FUNCTION)] == [entry]
    assert {path.name for path in folder.iterdir()} > set(foreign)


def test_what_cannot_be_removed_is_said(store: CacheStore, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = write_part(store)
    path = file_of(store, FUNCTION.part(entry.name))
    path.unlink()
    path.mkdir()
    monkeypatch.setattr(type(store.storage), "read", lambda *_: b"no part")
    with pytest.raises(CorruptObjectError, match=r"It could not be removed .*: remove it\."):
        store.read_part(FUNCTION, entry.name)


# Manifests.


def test_a_manifest_is_believed_once_its_parts_are_seen(store: CacheStore, catalog: StoreCatalog) -> None:
    assert catalog.manifest(FUNCTION, KEY) == (None, "")
    manifest = manifest_of(write_part(store), write_part(store, "run-000-00002"))
    assert store.write_manifest(manifest, replace=False) == manifest
    assert catalog.manifest(FUNCTION, KEY) == (manifest, "")


def test_an_output_without_parts_is_believed(store: CacheStore, catalog: StoreCatalog) -> None:
    store.write_manifest(manifest_of(), replace=False)
    assert catalog.manifest(FUNCTION, KEY) == (manifest_of(), "")


def test_the_first_manifest_stays_and_is_what_the_second_run_gets(store: CacheStore) -> None:
    entry = write_part(store)
    first, second = manifest_of(entry, run="run-1"), manifest_of(entry, run="run-2")
    assert store.write_manifest(first, replace=False) == first
    assert store.write_manifest(second, replace=False) == first
    assert store.write_manifest(second, replace=True) == second
    assert store.read_manifest(FUNCTION, KEY) == second


@pytest.mark.parametrize("damage", [b"", b'{"checksum":', b"\xff" * 500])
def test_a_damaged_manifest_is_no_hit_and_is_replaced(
    store: CacheStore, catalog: StoreCatalog, damage: bytes
) -> None:
    manifest = manifest_of(write_part(store))
    store.storage.publish(FUNCTION.manifest(KEY), damage)
    believed, why = catalog.manifest(FUNCTION, KEY)
    assert believed is None
    assert why.startswith("its manifest is damaged: ")
    assert store.write_manifest(manifest, replace=False) == manifest
    assert catalog.manifest(FUNCTION, KEY) == (manifest, "")


def test_the_manifest_of_another_output_is_no_hit(store: CacheStore, catalog: StoreCatalog) -> None:
    store.storage.publish(FUNCTION.manifest(KEY), manifest_of(function=OTHER).to_json())
    assert "the manifest of another output" in catalog.manifest(FUNCTION, KEY)[1]


def test_a_manifest_is_no_hit_where_a_part_is_cut(store: CacheStore, catalog: StoreCatalog) -> None:
    whole, torn = write_part(store), write_part(store, "run-000-00002")
    store.write_manifest(manifest_of(whole, torn), replace=False)
    cut(file_of(store, FUNCTION.part(torn.name)), 1)
    assert catalog.manifest(FUNCTION, KEY) == (None, f"1 of its 2 parts are gone or cut: {torn.name}")


def test_a_manifest_whose_parts_are_gone_does_not_stay(store: CacheStore) -> None:
    gone, there = write_part(store), write_part(store, "run-000-00002")
    store.write_manifest(manifest_of(gone), replace=False)
    file_of(store, FUNCTION.part(gone.name)).unlink()
    assert store.write_manifest(manifest_of(there), replace=False) == manifest_of(there)
    assert store.read_manifest(FUNCTION, KEY) == manifest_of(there)


# Units over runs.


def test_parts_of_two_runs_are_both_found_the_newer_ones_first(
    store: CacheStore, catalog: StoreCatalog
) -> None:
    older = write_part(store, "run-1-000-00001", ROWS[:1], run="run-1")
    newer = write_part(store, "run-2-000-00001", ROWS, run="run-2")
    stored = StoredUnits(catalog.indexes(FUNCTION))
    found = [stored.take(b"k" * 16) for _ in range(3)]
    assert [unit and unit.part for unit in found] == [newer, older, None]


def test_parts_that_a_merged_one_replaced_are_not_counted(store: CacheStore, catalog: StoreCatalog) -> None:
    small = write_part(store)
    merged = write_part(store, "run-000-00002", ROWS, replaces=(small.name,))
    assert [part for part, _ in catalog.indexes(FUNCTION)] == [merged]
    flip(file_of(store, FUNCTION.part(merged.name)), -50)
    assert [part for part, _ in StoreCatalog(store).indexes(FUNCTION)] == [small]


# Records.


def test_the_preimage_of_a_function_stays_as_it_was_first_written(store: CacheStore) -> None:
    store.write_preimage(FUNCTION, {"a": 1}, {"f": "code"})
    store.write_preimage(FUNCTION, {"a": 2}, {})
    assert b'"preimage":{"a":1}' in store.storage.read(FUNCTION.signature_file)


def test_a_preimage_may_be_as_deep_as_a_row(store: CacheStore) -> None:
    deep: list[Any] = []
    for _ in range(256):
        deep = [deep]
    store.write_preimage(FUNCTION, {"data": [deep]}, {})
    assert json.loads(store.storage.read(FUNCTION.signature_file))["preimage"] == {"data": [deep]}


def test_records_of_pipelines_stay_within_the_root(store: CacheStore) -> None:
    name = "../../" + "\n/é" * 200
    store.write_record(pipeline_record(name, "s", "a"), {"run": "r"})
    store.write_run_file("../run", "events.jsonl", b"{}")
    assert store.storage.read(pipeline_record(name, "s", "a")) == b'{"run":"r"}'
    root = Path(store.storage.url)
    assert {path.name for path in root.iterdir()} == {"pipelines", "runs"}
    assert {path.name for path in root.parent.iterdir()} == {root.name}


def test_a_cache_in_a_bucket_does_the_same(gcs_root: GcsRoot) -> None:
    store = CacheStore(open_storage(gcs_root.url, gcs_root.storage_options))
    catalog = StoreCatalog(store)
    rows = [{"n": n} for n in range(2 * TAIL // 16)]
    entries = [write_part(store), write_part(store, "run-000-00002", rows)]
    manifest = manifest_of(*entries)
    assert store.write_manifest(manifest, replace=False) == manifest
    assert store.write_manifest(manifest_of(run="run-2"), replace=False) == manifest
    assert catalog.manifest(FUNCTION, KEY) == (manifest, "")
    assert [index for _, index in catalog.indexes(FUNCTION)] == [index_of(ROWS), index_of(rows)]
    assert decode_rows(store.read_part(FUNCTION, entries[1].name)[0]) == rows
    data = store.storage.read(FUNCTION.part(entries[0].name))
    store.storage.publish(FUNCTION.part(entries[0].name), data[:10] + b"?" + data[11:])
    with pytest.raises(CorruptObjectError, match="damaged"):
        store.read_part(FUNCTION, entries[0].name)
    assert catalog.manifest(FUNCTION, KEY)[0] is None


def test_a_whole_part_of_a_version_to_come_is_neither_read_nor_removed(
    store: CacheStore, catalog: StoreCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill_ray.errors import StorageError

    monkeypatch.setattr(UnitIndex, "to_json", lambda _: b'{"format":"unknown"}')
    name = write_part(store).name
    monkeypatch.undo()
    assert catalog.indexes(FUNCTION) == []
    message = rf"The part .*{name}\.parquet is whole, but .* cannot be read by this version"
    with pytest.raises(StorageError, match=message):
        store.read_part(FUNCTION, name)
    assert [part.name for part in store.parts(FUNCTION)] == [name]
