"""A walk gives all that a root holds, and is not disturbed by what others left there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from distill_ray.cache import paths
from distill_ray.cache.inventory import (
    Damage,
    Root,
    StoredFunction,
    StoredOutput,
    identify,
    read_output,
    read_record,
    records_below,
    roots,
    walk_functions,
)
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.store import CacheStore
from distill_ray.storage import open_storage
from tests.cache.made_cache import FUNCTION, OTHER, key, put_output, put_part, run_id
from tests.gcs_server import GcsRoot


def functions_of(store: CacheStore) -> list[StoredFunction]:
    return list(walk_functions(Root("", store)))


@pytest.fixture(params=["disk", "bucket"])
def any_store(request: pytest.FixtureRequest, store: CacheStore) -> CacheStore:
    if request.param == "disk":
        return store
    root: GcsRoot = request.getfixturevalue("gcs_root")
    return CacheStore(open_storage(root.url, root.storage_options))


def test_a_walk_gives_every_function_with_its_parts_and_outputs(any_store: CacheStore) -> None:
    run = run_id()
    parts = [put_part(any_store, run, first) for first in (0, 10)]
    manifest = put_output(any_store, "a", run, parts[:1])
    any_store.write_preimage(FUNCTION, {"a": 1}, {})
    put_part(any_store, run, function=OTHER)
    mine, other = functions_of(any_store)
    assert (mine.function, other.function) == (FUNCTION, OTHER)
    assert mine.parts == {part.name: part.size for part in parts}
    (output,) = mine.outputs
    assert (output.output_key, output.rows, output.parts) == (key("a"), 5, tuple(parts[:1]))
    assert output.size == len(manifest.to_json())
    assert mine.loose() == {parts[1].name}
    assert mine.missing(output) == ()
    assert mine.size == sum(part.size for part in parts) + output.size + mine.preimage
    assert (other.outputs, other.preimage) == ((), 0)


def test_a_class_whose_name_is_no_path_element_is_known_by_its_preimage(store: CacheStore) -> None:
    function = FunctionId("Größe/x", "a" * 64)
    put_part(store, run_id(), function=function)
    folder = function.folder.removeprefix("steps/")
    assert identify(store, folder) is None
    assert functions_of(store) == []
    store.write_preimage(function, {}, {})
    assert identify(store, folder) == function
    assert [each.function for each in functions_of(store)] == [function]


@pytest.mark.parametrize("preimage", [b"{", b"[]", b"{}", b'{"class": 1}', b'{"class": "Another"}'])
def test_a_preimage_that_names_another_class_is_not_believed(store: CacheStore, preimage: bytes) -> None:
    store.storage.publish("steps/x~012345678901-ff/signature.json", preimage)
    assert functions_of(store) == []


def test_what_others_left_among_ours_is_passed_over(store: CacheStore) -> None:
    part = put_part(store, run_id())
    put_output(store, "a", run_id(), [part])
    for path in (
        "steps/file",
        f"{FUNCTION.outputs_folder}/notes.txt",
        f"{FUNCTION.parts_folder}/notes.txt",
        f"{FUNCTION.parts_folder}/empty.parquet",
    ):
        store.storage.publish(path, b"" if "empty" in path else b"x")
    (function,) = functions_of(store)
    assert set(function.parts) == {part.name}
    assert len(function.outputs) == 1
    assert function.damaged == ()


def test_an_empty_manifest_hides_that_of_another_root_and_is_none(store: CacheStore) -> None:
    store.storage.publish(FUNCTION.manifest(key("a")), b"")
    assert functions_of(store) == []
    put_part(store, run_id())
    (function,) = functions_of(store)
    assert (function.outputs, function.damaged) == ((), ())


def test_a_manifest_that_cannot_be_read_is_damage(store: CacheStore) -> None:
    path = FUNCTION.manifest(key("a"))
    store.storage.publish(path, b"{")
    ((damage,),) = [function.damaged for function in functions_of(store)]
    assert (damage.path, damage.kind) == (path, "corrupt manifest")
    assert read_output(store, FUNCTION.manifest(key("b"))) is None


def test_a_manifest_in_anothers_place_is_damage(store: CacheStore) -> None:
    manifest = put_output(store, "a", run_id(), [])
    store.storage.publish(FUNCTION.manifest(key("b")), manifest.to_json())
    assert read_output(store, FUNCTION.manifest(key("b"))) == Damage(
        FUNCTION.manifest(key("b")), "swapped", "it is the manifest of another output"
    )
    store.storage.publish(OTHER.manifest(key("a")), manifest.to_json())
    (damage,) = functions_of(store)[1].damaged
    assert (damage.path, damage.kind) == (OTHER.manifest(key("a")), "swapped")


def test_outputs_of_one_run_are_given_with_their_function(store: CacheStore) -> None:
    run = run_id()
    part = put_part(store, run)
    path = paths.run_output(run, key("a"))
    put_output(store, "a", run, [part], path=path)
    private = read_output(store, path, private=True)
    assert isinstance(private, StoredOutput)
    (function,) = walk_functions(Root("", store), [private])
    assert function.outputs == (private,)
    assert function.loose() == set()
    assert function.size == part.size, "it is counted with its run"


def test_roots_within_roots_are_given_with_their_place(store: CacheStore) -> None:
    salted, scope = paths.salted_folder("x"), paths.scope_folder("mine")
    for place in ("", scope, salted, f"{salted}/{scope}"):
        below = CacheStore(store.storage.below(place) if place else store.storage)
        put_part(below, run_id())
    found = list(roots(store.storage))
    assert [root.place for root in found] == ["", scope, salted, f"{salted}/{scope}"]
    assert all(len(functions_of(root.store)) == 1 for root in found)
    assert found[3].path("a") == f"{salted}/{scope}/a"
    assert found[0].path("a") == "a"


def test_records_are_read_or_said_to_be_damaged(store: CacheStore) -> None:
    store.storage.publish("pipelines/a/b/c.json", b'{"a": 1}')
    store.storage.publish("pipelines/a/d.json", b"[]")
    store.storage.publish("pipelines/a/e.txt", b"")
    assert list(records_below(store.storage, "pipelines")) == ["pipelines/a/d.json", "pipelines/a/b/c.json"]
    assert read_record(store, "pipelines/a/b/c.json") == {"a": 1}
    assert isinstance(read_record(store, "pipelines/a/d.json"), Damage)
    assert isinstance(read_record(store, "pipelines/a/e.txt"), Damage)
    assert read_record(store, "pipelines/a/none.json") is None


def test_a_walk_that_is_left_early_ends(tmp_path: Path) -> None:
    before = threading.active_count()
    store = CacheStore(open_storage(str(tmp_path)))
    for number in range(200):
        store.storage.publish(f"steps/A-{number:064x}/signature.json", b"{}")
    walk = walk_functions(Root("", store))
    next(walk)
    walk.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
