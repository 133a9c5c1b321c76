"""Stock holds what a collection decides on: facts of all roots that count, and what is in use."""

from __future__ import annotations

import time
from pathlib import Path

from distill_ray.cache import paths
from distill_ray.cache.gc import Policy, choose
from distill_ray.cache.live_runs import RunWatcher
from distill_ray.cache.root_settings import claim, set_salt
from distill_ray.cache.runs import begun
from distill_ray.cache.stock import Cost, Stock, cost_of, take_stock
from distill_ray.cache.store import CacheStore
from distill_ray.storage import Storage, open_storage
from tests.cache.made_cache import (
    DAY,
    FUNCTION,
    key,
    live_run,
    put_merged,
    put_output,
    put_part,
    put_run,
    run_id,
)


def stock_of(store: CacheStore, *others: Storage) -> Stock:
    return take_stock(store.storage, others, RunWatcher(), lambda _: None)


def choose_in(stock: Stock) -> set[str]:
    choice = choose(stock.functions, stock.in_use, Policy(time.time()))
    return {each.name for each in (*choice.outputs, *choice.parts)}


def test_facts_are_those_of_the_root(store: CacheStore) -> None:
    run, used = run_id(9), run_id(2)
    parts = [put_part(store, run, first) for first in (0, 10, 20)]
    put_merged(store, run, parts[1:])
    put_output(store, "a", run, parts[:1])
    put_run(store, used, ["a"])
    with live_run(store, ["b"]) as live:
        stock = stock_of(store)
    (facts,) = stock.functions
    assert {part.name for part in facts.parts if part.replaced} == {part.name for part in parts[1:]}
    assert {part.written for part in facts.parts} == {begun(run)}
    (output,) = facts.outputs
    assert (output.output_key, output.used, output.broken, output.private) == (
        key("a"),
        begun(used),
        False,
        False,
    )
    assert stock.in_use.runs == {live}
    assert stock.in_use.outputs == {key("b")}


def test_roots_of_other_salts_are_clutter_and_nothing_else(store: CacheStore) -> None:
    claim(store.storage)
    for salt in ("old", "now"):
        put_part(CacheStore(store.storage.below(paths.salted_folder(salt))), run_id())
    set_salt(store.storage, "now")
    stock = stock_of(store)
    assert [facts.place for facts in stock.functions] == [paths.salted_folder("now")]
    (clutter,) = stock.clutter
    assert (clutter.kind, clutter.place) == ("root", paths.salted_folder("old"))
    assert clutter.size > 0


def test_a_root_of_another_salt_in_which_a_run_lives_stays(store: CacheStore) -> None:
    below = CacheStore(store.storage.below(paths.salted_folder("old")))
    put_part(below, run_id())
    with live_run(below):
        assert stock_of(store).clutter == ()


def test_parts_of_another_root_that_this_one_is_read_with_are_there(
    store: CacheStore, tmp_path: Path
) -> None:
    other = CacheStore(open_storage(str(tmp_path / "other")))
    run = run_id()
    part = put_part(other, run)
    put_output(store, "a", run, [part])
    assert choose_in(stock_of(store, other.storage)) == set()
    assert choose_in(stock_of(store)) == {FUNCTION.manifest(key("a"))}


def test_the_cost_of_making_parts_again_is_what_they_took(store: CacheStore) -> None:
    run = run_id(40)
    small = [put_part(store, run, first) for first in (0, 10)]
    put_merged(store, run, small)
    stock = stock_of(store)
    choice = choose(stock.functions, stock.in_use, Policy(time.time(), older_than=DAY))
    assert len(choice.parts) == 3
    assert cost_of(stock, choice.parts) == Cost(2.0, 20, 40), "rows that stand in two parts cost once"
