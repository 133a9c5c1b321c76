"""From the records of runs: who used what, and when."""

from __future__ import annotations

import math

import pytest

from distill_ray.cache import paths
from distill_ray.cache.inventory import Root, StoredOutput
from distill_ray.cache.runs import Uses, begun, read_uses, walk_runs
from distill_ray.cache.store import CacheStore
from tests.cache.made_cache import key, put_output, put_part, put_run, run_id


def uses_of(store: CacheStore) -> tuple[Uses, list[StoredOutput]]:
    return read_uses(Root("", store), lambda _: None)


def test_the_newest_run_that_names_an_output_used_it_last(store: CacheStore) -> None:
    old, new = run_id(9), run_id(2)
    put_run(store, new, ["a"], pipeline="two")
    put_run(store, old, ["a", "b"], pipeline="one")
    uses, _ = uses_of(store)
    assert uses.last == {key("a"): new, key("b"): old}
    assert uses.pipelines == {key("a"): {"one", "two"}, key("b"): {"one"}}


@pytest.mark.parametrize(("written", "named", "used"), [(9, 2, 2), (2, 9, 2)])
def test_an_output_that_is_newer_than_its_last_use_was_used_when_it_was_written(
    store: CacheStore, written: float, named: float, used: float
) -> None:
    runs = {days: run_id(days) for days in (written, named)}
    part = put_part(store, runs[written])
    put_output(store, "a", runs[written], [part], path=paths.run_output(runs[written], key("a")))
    put_run(store, runs[named], ["a"])
    uses, (output,) = uses_of(store)
    assert uses.last_use(output) == runs[used]


def test_an_output_that_no_record_names_was_used_when_it_was_written(store: CacheStore) -> None:
    run = run_id(3)
    put_output(store, "a", run, [], path=paths.run_output(run, key("a")))
    uses, (output,) = uses_of(store)
    assert output.private
    assert uses.last_use(output) == run


@pytest.mark.parametrize("record", [b"{", b"[]", b"{}", b'{"steps": [1]}', b'{"steps": {"a": 1}}'])
def test_a_record_of_another_kind_names_nothing(store: CacheStore, record: bytes) -> None:
    run = run_id()
    store.write_run_file(run, "run.json", record)
    (found,) = walk_runs(Root("", store))
    assert found.outputs == frozenset()
    assert bool(found.damaged) == (record in (b"{", b"[]"))


def test_a_run_counts_all_its_bytes(store: CacheStore) -> None:
    run = run_id()
    put_run(store, run)
    store.write_run_file(run, "events-0001.jsonl", b"12345")
    manifest = put_output(store, "a", run, [], path=paths.run_output(run, key("a")))
    (found,) = walk_runs(Root("", store))
    own = sum(store.storage.sizes(paths.run_folder(run)).values())
    assert found.size == own + len(manifest.to_json())
    assert not found.beats


def test_when_a_run_began_is_in_its_id() -> None:
    assert begun("19700101T000130-0123abcd") == 90.0
    assert begun("19700101T000130-0123abcd-000-00001-digest") == 90.0
    assert begun("") == begun("run-1") == math.inf
