"""Whatever is wrong in a root is found and named, and a repair leaves it so that runs compute it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_ray.cache import paths
from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.manifest import Manifest, PartEntry, Segment
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.verify import Finding, Verifier, repair
from distill_ray.storage import open_storage
from tests.cache.made_cache import FUNCTION, OTHER, key, part_names, put_output, put_part, put_run, run_id
from tests.damage import cut, flip
from tests.gcs_server import GcsRoot


def verify(store: CacheStore, *, deep: bool = True) -> list[Finding]:
    return list(Verifier(store.storage, (), lambda _: None).verify(deep=deep))


def kinds(store: CacheStore, *, deep: bool = True) -> list[str]:
    return sorted(finding.kind for finding in verify(store, deep=deep))


def file_of(store: CacheStore, path: str) -> Path:
    return Path(store.storage.url, path)


@pytest.fixture
def parts(store: CacheStore) -> list[PartEntry]:
    """A root that holds one output of two parts, and all that goes with it."""
    run = run_id(1)
    parts = [put_part(store, run, first) for first in (0, 10)]
    put_output(store, "a", run, parts)
    put_run(store, run, ["a"])
    store.write_preimage(FUNCTION, {"a": 1}, {})
    store.storage.publish(paths.pipeline_record("made", "s", "a"), b"{}")
    store.storage.publish(paths.latest_record("made"), b"{}")
    return parts


@pytest.mark.usefixtures("parts")
def test_in_a_root_as_it_was_written_nothing_is_wrong(store: CacheStore) -> None:
    verifier = Verifier(store.storage, (), lambda _: None)
    assert list(verifier.verify(deep=True)) == []
    seen = verifier.seen
    assert (seen.functions, seen.outputs, seen.parts, seen.records) == (1, 1, 2, 3)
    assert seen.size == sum(part.size for part in store.parts(FUNCTION))


def test_an_empty_root_is_fine(store: CacheStore) -> None:
    assert verify(store) == []


def delete_part(store: CacheStore, parts: list[PartEntry]) -> None:
    store.delete_parts(FUNCTION, [parts[0].name])


def cut_part(store: CacheStore, parts: list[PartEntry]) -> None:
    cut(file_of(store, FUNCTION.part(parts[0].name)), 20)


def flip_part(store: CacheStore, parts: list[PartEntry]) -> None:
    flip(file_of(store, FUNCTION.part(parts[0].name)), 40)


def flip_footer(store: CacheStore, parts: list[PartEntry]) -> None:
    flip(file_of(store, FUNCTION.part(parts[0].name)), -60)


def swap_parts(store: CacheStore, parts: list[PartEntry]) -> None:
    store.storage.publish(FUNCTION.part(parts[0].name), store.storage.read(FUNCTION.part(parts[1].name)))


def flip_manifest(store: CacheStore, _: list[PartEntry]) -> None:
    flip(file_of(store, FUNCTION.manifest(key("a"))))


def swap_manifest(store: CacheStore, _: list[PartEntry]) -> None:
    store.storage.publish(FUNCTION.manifest(key("b")), store.storage.read(FUNCTION.manifest(key("a"))))


def spoil_run(store: CacheStore, _: list[PartEntry]) -> None:
    (run,) = store.storage.folders("runs")
    store.storage.publish(f"runs/{run}/run.json", b'{"run": ')


def spoil_pipeline(store: CacheStore, _: list[PartEntry]) -> None:
    store.storage.publish(paths.pipeline_record("made", "s", "a"), b"[]")


def spoil_preimage(store: CacheStore, _: list[PartEntry]) -> None:
    store.storage.publish(FUNCTION.signature_file, b"\xff")


@pytest.mark.parametrize(
    ("damage", "kind", "shallow"),
    [
        (delete_part, "missing", True),
        (cut_part, "truncated", True),
        (flip_part, "bit-flipped", False),
        (flip_footer, "bit-flipped", False),
        (swap_parts, "swapped", False),
        (flip_manifest, "corrupt manifest", True),
        (swap_manifest, "swapped", True),
        (spoil_run, "corrupt record", True),
        (spoil_pipeline, "corrupt record", True),
        (spoil_preimage, "corrupt record", True),
    ],
)
def test_damage_is_found_named_and_repaired(
    store: CacheStore,
    parts: list[PartEntry],
    damage: Callable[[CacheStore, list[PartEntry]], None],
    kind: str,
    shallow: bool,
) -> None:
    damage(store, parts)
    assert (kind in kinds(store, deep=False)) == shallow
    findings = verify(store)
    assert kind in {finding.kind for finding in findings}
    assert repair(store.storage, findings)
    assert verify(store) == []
    assert parts[1].name in part_names(store), "what is whole stays"


def test_after_a_repair_the_output_is_no_hit_and_its_whole_parts_are_found(
    store: CacheStore, parts: list[PartEntry]
) -> None:
    flip_part(store, parts)
    repair(store.storage, verify(store))
    catalog = StoreCatalog(store)
    assert catalog.manifest(FUNCTION, key("a")) == (None, "")
    assert [part for part, _ in catalog.indexes(FUNCTION)] == [parts[1]]


def test_a_part_of_another_function_is_swapped(store: CacheStore, parts: list[PartEntry]) -> None:
    store.storage.publish(OTHER.part(parts[0].name), store.storage.read(FUNCTION.part(parts[0].name)))
    assert kinds(store) == ["swapped"]


def test_a_manifest_that_names_rows_which_its_part_lacks_is_wrong(
    store: CacheStore, parts: list[PartEntry]
) -> None:
    segments = (Segment(0, 3, 10),)
    manifest = Manifest(FUNCTION, key("b"), 10, "c", tuple(parts[:1]), segments, {}, run_id())
    store.storage.publish(FUNCTION.manifest(key("b")), manifest.to_json())
    assert kinds(store, deep=False) == []
    assert kinds(store) == ["wrong rows"]
    repair(store.storage, verify(store))
    assert verify(store) == []
    assert len(part_names(store)) == 2


def test_an_output_of_one_run_is_looked_at_too(store: CacheStore, parts: list[PartEntry]) -> None:
    run = run_id()
    path = f"{paths.run_folder(run)}/outputs/{key('b')}.json"
    put_output(store, "b", run, parts, path=path)
    delete_part(store, parts)
    assert sorted(finding.remove[-1] for finding in verify(store)) == [path, FUNCTION.manifest(key("a"))]
    flip(file_of(store, path))
    assert {finding.path for finding in verify(store) if finding.kind == "corrupt manifest"} == {path}


def test_a_folder_of_others_is_named_and_never_removed(store: CacheStore) -> None:
    store.storage.publish("steps/their folder/file", b"x")
    store.storage.publish("steps/x~0123-00/signature.json", json.dumps({"class": "y"}).encode())
    findings = verify(store)
    assert [finding.kind for finding in findings] == ["foreign", "foreign"]
    assert repair(store.storage, findings) == 0
    assert store.storage.read("steps/their folder/file") == b"x"


def test_the_folder_of_a_function_that_was_removed_is_no_fault(store: CacheStore) -> None:
    function = FUNCTION.__class__("Größe", "a" * 64)
    part = put_part(store, run_id(), function=function)
    store.delete_parts(function, [part.name])
    assert verify(store) == []


def test_parts_of_a_root_that_this_one_is_read_with_are_not_missing(
    store: CacheStore, tmp_path: Path
) -> None:
    other = CacheStore(open_storage(str(tmp_path / "other")))
    part = put_part(other, run_id())
    put_output(store, "a", run_id(), [part])
    assert kinds(store) == ["missing"]
    assert list(Verifier(store.storage, (other.storage,), lambda _: None).verify(deep=True)) == []


def test_roots_within_the_root_are_looked_at_too(store: CacheStore) -> None:
    below = CacheStore(store.storage.below(paths.scope_folder("mine")))
    part = put_part(below, run_id())
    put_output(below, "a", run_id(), [part])
    below.delete_parts(FUNCTION, [part.name])
    (finding,) = verify(store)
    assert (finding.place, finding.kind) == ("scopes/mine", "missing")
    assert repair(store.storage, [finding]) == 1
    assert verify(store) == []


def test_a_whole_part_of_a_version_to_come_is_named_and_stays(
    store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UnitIndex, "to_json", lambda _: b'{"format":"unknown"}')
    put_part(store, run_id())
    monkeypatch.undo()
    findings = verify(store)
    assert [finding.kind for finding in findings] == ["unreadable"]
    assert repair(store.storage, findings) == 0


def test_a_bucket_is_verified_likewise(gcs_root: GcsRoot) -> None:
    store = CacheStore(open_storage(gcs_root.url, gcs_root.storage_options))
    run = run_id()
    parts = [put_part(store, run, first) for first in (0, 10)]
    put_output(store, "a", run, parts)
    assert verify(store) == []
    data = store.storage.read(FUNCTION.part(parts[0].name))
    store.storage.publish(FUNCTION.part(parts[0].name), data[:40] + b"?" + data[41:])
    store.delete_parts(FUNCTION, [parts[1].name])
    assert kinds(store) == ["bit-flipped", "missing"]
    assert repair(store.storage, verify(store)) == 2
    assert verify(store) == []
