"""Collections remove what nobody needs, in an order that no run beside them can be hurt by."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cache import paths
from distill_ray.cache.collection import Sweeper, Swept, condemn
from distill_ray.cache.condemned import record_names
from distill_ray.cache.gc import Policy, choose
from distill_ray.cache.live_runs import RunWatcher
from distill_ray.cache.root_settings import claim, set_salt
from distill_ray.cache.stock import Stock, take_stock
from distill_ray.cache.store import CacheStore
from distill_ray.storage import open_storage
from tests.cache.made_cache import (
    DAY,
    FUNCTION,
    OTHER,
    key,
    live_run,
    part_names,
    put_dead_heartbeat,
    put_merged,
    put_output,
    put_part,
    put_run,
    rows_of,
    run_id,
)
from tests.gcs_server import GcsRoot


def silent(_what: str) -> None:
    pass


def stock_of(store: CacheStore) -> Stock:
    return take_stock(store.storage, (), RunWatcher(), silent)


def sweep(store: CacheStore, now: float | None = None) -> Swept:
    return Sweeper(store.storage, RunWatcher(), silent).sweep(time.time() if now is None else now)


def mark(store: CacheStore, grace: float = 0.0, **policy: Any) -> Stock:
    """The first phase of a collection."""
    stock = stock_of(store)
    choice = choose(stock.functions, stock.in_use, Policy(time.time(), **policy))
    condemn(store.storage, choice, stock.clutter, now=time.time(), grace=grace)
    return stock


def collect(store: CacheStore, **policy: Any) -> Swept:
    """Both phases, one right after the other."""
    mark(store, **policy)
    return sweep(store)


def outputs_of(store: CacheStore) -> set[str]:
    return {name.removesuffix(".json") for name in store.storage.sizes(FUNCTION.outputs_folder)}


def files_of(store: CacheStore) -> set[str]:
    root = Path(store.storage.url)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture(params=["disk", "bucket"])
def any_store(request: pytest.FixtureRequest, store: CacheStore) -> CacheStore:
    if request.param == "disk":
        return store
    root: GcsRoot = request.getfixturevalue("gcs_root")
    return CacheStore(open_storage(root.url, root.storage_options))


def test_an_old_output_goes_with_its_parts_and_a_used_one_stays(any_store: CacheStore) -> None:
    old, new = run_id(40), run_id(35)
    manifest = put_output(any_store, "used", old, [put_part(any_store, old)])
    put_output(any_store, "old", new, [put_part(any_store, new, 100)])
    put_run(any_store, run_id(5), ["used"])
    swept = collect(any_store, older_than=30 * DAY)
    assert outputs_of(any_store) == {key("used")}
    assert part_names(any_store) == {part.name for part in manifest.parts}
    assert len(rows_of(any_store, manifest)) == 5
    assert swept.removed == 1
    assert record_names(any_store.storage) == []


def test_the_notes_beside_parts_go_with_the_last_of_these(any_store: CacheStore) -> None:
    notes = [f"{function.parts_folder}/_used.20260131.0a1b" for function in (FUNCTION, OTHER)]
    for note in notes:
        any_store.storage.publish(note, b"{}")
    old, new = run_id(40), run_id(5)
    any_store.storage.publish(FUNCTION.signature_file, b"{}")
    put_output(any_store, "old", old, [put_part(any_store, old)])
    put_part(any_store, new, function=OTHER)
    collect(any_store, older_than=30 * DAY)
    assert any_store.storage.sizes(FUNCTION.parts_folder) == {}
    assert any_store.storage.sizes(FUNCTION.folder) == {}
    assert len(any_store.storage.sizes(OTHER.parts_folder)) == 2


def test_without_a_policy_a_crashed_runs_units_stay_and_its_merged_parts_go(any_store: CacheStore) -> None:
    run = run_id(100)
    small = [put_part(any_store, run, first) for first in (0, 10, 20)]
    merged = put_merged(any_store, run, small[:2])
    collect(any_store)
    assert part_names(any_store) == {merged.name, small[2].name}


def test_a_manifest_whose_parts_are_gone_goes(store: CacheStore) -> None:
    run = run_id()
    parts = [put_part(store, run, first) for first in (0, 10)]
    put_output(store, "a", run, parts)
    store.delete_parts(FUNCTION, [parts[0].name])
    collect(store)
    assert outputs_of(store) == set()
    assert part_names(store) == {parts[1].name}


def test_manifests_go_at_once_and_parts_only_after_the_grace_period(store: CacheStore) -> None:
    run = run_id(40)
    part = put_part(store, run)
    put_output(store, "a", run, [part])
    mark(store, grace=600, older_than=DAY)
    assert outputs_of(store) == set()
    swept = sweep(store)
    assert (swept.removed, swept.waiting) == (0, part.size)
    assert 590 < swept.due_in <= 600
    assert part_names(store) == {part.name}
    assert sweep(store, time.time() + 601).removed == 1
    assert part_names(store) == set()


def test_a_part_that_a_run_has_named_again_meanwhile_stays(store: CacheStore) -> None:
    run = run_id(40)
    parts = [put_part(store, run, first) for first in (0, 10)]
    put_output(store, "a", run, parts)
    mark(store, older_than=DAY)
    again = put_output(store, "b", run_id(), parts[:1])
    swept = sweep(store)
    assert (swept.named_again, swept.removed) == (1, 1)
    assert len(rows_of(store, again)) == 5


def test_a_part_that_an_output_of_one_run_names_stays(store: CacheStore) -> None:
    run = run_id(40)
    part = put_part(store, run)
    mark(store, older_than=DAY)
    failed = run_id(0.5)
    put_output(store, "a", failed, [part], path=f"{paths.run_folder(failed)}/outputs/{key('a')}.json")
    assert sweep(store).named_again == 1


def test_an_output_of_one_run_goes_long_after_it(store: CacheStore) -> None:
    for run in (old := run_id(8), run_id(1)):
        part = put_part(store, run)
        put_output(store, "a", run, [part], path=f"{paths.run_folder(run)}/outputs/{key('a')}.json")
    collect(store)
    assert store.storage.sizes(f"{paths.run_folder(old)}/outputs") == {}
    assert len(part_names(store)) == 2


def test_what_a_live_run_uses_stays_in_both_phases(store: CacheStore) -> None:
    run = run_id(40)
    mine, others = put_part(store, run), put_part(store, run, function=OTHER)
    put_output(store, "a", run, [mine])
    with live_run(store, ["a"], [FUNCTION]):
        collect(store, older_than=DAY)
        assert outputs_of(store) == {key("a")}
        assert part_names(store) == {mine.name}
        assert part_names(store, OTHER) == set(), "another function's do not stay with it"
    assert others
    collect(store, older_than=DAY)
    assert part_names(store) == set()


def test_a_run_that_begins_between_the_phases_keeps_the_parts_until_it_ends(store: CacheStore) -> None:
    run = run_id(40)
    part = put_part(store, run)
    put_output(store, "a", run, [part])
    mark(store, older_than=DAY)
    with live_run(store, [], [FUNCTION]):
        assert sweep(store).in_use == 1
        assert part_names(store) == {part.name}
    assert sweep(store).removed == 1
    assert record_names(store.storage) == []


def test_a_live_runs_own_parts_stay_whatever_is_asked(store: CacheStore) -> None:
    with live_run(store, functions=[OTHER]) as run:
        part = put_part(store, run)
        collect(store, max_size=0)
        assert part_names(store) == {part.name}


def test_by_size_the_least_recently_used_go(store: CacheStore) -> None:
    sizes = {}
    for number, days in enumerate((30, 20, 10)):
        part = put_part(store, run := run_id(days), 10 * number)
        manifest = put_output(store, str(days), run, [part])
        sizes[days] = part.size + len(manifest.to_json())
    put_run(store, run_id(1), ["30"])
    collect(store, max_size=sizes[30] + sizes[10])
    assert outputs_of(store) == {key("30"), key("10")}


def test_leases_and_heartbeats_of_dead_runs_go_and_those_of_live_ones_stay(store: CacheStore) -> None:
    dead = run_id(2)
    put_dead_heartbeat(store, dead)
    with live_run(store) as live:
        for name, run in (("a", dead), ("b", live)):
            lease = {"run": run, "step": "s", "beat_seconds": 1, "nonce": "n"}
            store.storage.publish(paths.lease(name, 1), json.dumps(lease).encode())
        collect(store)
        assert set(store.storage.sizes("leases")) == {"b.1"}
        assert set(store.storage.sizes(paths.run_folder(live))) == {"heartbeat.json"}
        assert store.storage.sizes(paths.run_folder(dead)) == {}


def test_a_lease_that_another_run_took_between_the_phases_stays(store: CacheStore) -> None:
    lease = {"run": run_id(2), "step": "s", "beat_seconds": 1, "nonce": "n"}
    store.storage.publish(paths.lease("a", 1), json.dumps(lease).encode())
    mark(store)
    with live_run(store) as live:
        store.storage.publish(paths.lease("a", 1), json.dumps({**lease, "run": live}).encode())
        sweep(store)
        assert set(store.storage.sizes("leases")) == {"a.1"}


def test_what_writes_left_goes_unless_one_may_still_be_under_way(store: CacheStore) -> None:
    put_part(store, run_id())
    left = Path(store.storage.url, FUNCTION.parts_folder, ".tmp-0123")
    left.write_bytes(b"half a part")
    with live_run(store, functions=[OTHER]):
        collect(store)
        assert left.exists()
        assert sweep(store, time.time() + 3601).removed == 1
    assert not left.exists()


def test_what_other_salts_left_goes_with_all_that_is_in_it(any_store: CacheStore) -> None:
    claim(any_store.storage)
    for salt in ("old", "now"):
        below = CacheStore(any_store.storage.below(paths.salted_folder(salt)))
        run = run_id()
        put_output(below, "a", run, [put_part(below, run)])
        put_run(below, run, ["a"])
    set_salt(any_store.storage, "now")
    collect(any_store)
    kept = CacheStore(any_store.storage.below(paths.salted_folder("now")))
    assert len(part_names(kept)) == 1
    old = CacheStore(any_store.storage.below(paths.salted_folder("old")))
    assert part_names(old) == set()
    assert old.storage.sizes(FUNCTION.outputs_folder) == {}


def test_a_root_of_another_salt_goes_without_the_root_in_it_where_a_run_lives(any_store: CacheStore) -> None:
    claim(any_store.storage)
    old = CacheStore(any_store.storage.below(paths.salted_folder("old")))
    scoped = CacheStore(old.storage.below(paths.scope_folder("mine")))
    for below in (old, scoped):
        put_part(below, run_id(40))
    with live_run(scoped):
        collect(any_store)
        assert part_names(old) == set()
        assert len(part_names(scoped)) == 1
    collect(any_store)
    assert part_names(scoped) == set()


@pytest.mark.parametrize("within", ["", f"/{paths.scope_folder('mine')}"])
def test_a_salt_that_comes_back_between_the_phases_keeps_what_it_had(store: CacheStore, within: str) -> None:
    claim(store.storage)
    below = CacheStore(store.storage.below(f"{paths.salted_folder('old')}{within}"))
    put_part(below, run_id())
    mark(store)
    set_salt(store.storage, "old")
    sweep(store)
    assert len(part_names(below)) == 1


def test_roots_of_pipelines_are_looked_after_too(store: CacheStore) -> None:
    below = CacheStore(store.storage.below(paths.scope_folder("mine")))
    run = run_id(40)
    put_output(below, "a", run, [put_part(below, run)])
    collect(store, older_than=DAY)
    assert part_names(below) == set()


def test_a_collection_that_was_killed_is_finished_by_the_next(store: CacheStore) -> None:
    run = run_id(40)
    put_output(store, "a", run, [put_part(store, run)])
    stock = stock_of(store)
    choice = choose(stock.functions, stock.in_use, Policy(time.time(), older_than=DAY))
    condemn(store.storage, choice.__class__(parts=choice.parts), now=time.time(), grace=0)
    # Killed before the manifest went: it still names its part.
    assert sweep(store).named_again == 1
    assert len(part_names(store)) == 1
    collect(store, older_than=DAY)
    assert part_names(store) == set()


def test_what_is_no_record_is_passed_over(store: CacheStore) -> None:
    store.storage.publish("gc/x.json", b"{")
    assert sweep(store) == Swept()


def test_a_function_that_lost_all_it_had_is_forgotten(store: CacheStore) -> None:
    run = run_id(40)
    put_output(store, "a", run, [put_part(store, run)])
    store.write_preimage(FUNCTION, {"a": 1}, {})
    collect(store, older_than=DAY)
    assert files_of(store) == set()


def test_live_runs_lose_nothing_to_collections_that_go_on_all_the_time(store: CacheStore) -> None:
    lost: list[str] = []
    done = threading.Event()

    def write(number: int) -> None:
        for round_ in range(3):
            with live_run(store, [f"{number}-{round_}"], [FUNCTION]) as run:
                small = [put_part(store, run, 1000 * number + 10 * round_ + first) for first in (0, 5)]
                manifest = put_output(store, f"{number}-{round_}", run, [put_merged(store, run, small)])
                time.sleep(0.2)
                lost.extend(store.missing_parts(manifest))
                if store.read_manifest(FUNCTION, manifest.output_key) != manifest:
                    lost.append(manifest.output_key)

    def collect_all() -> None:
        while not done.is_set():
            collect(store, older_than=0, max_size=0)

    collector = threading.Thread(target=collect_all)
    collector.start()
    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    done.set()
    collector.join()
    assert lost == []
    assert collect(store, max_size=0).in_use == 0
    assert part_names(store) == set()
