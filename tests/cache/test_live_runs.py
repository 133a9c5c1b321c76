"""Which runs live is told from their heartbeats, and nothing else."""

from __future__ import annotations

import pytest

from distill_ray.cache import paths
from distill_ray.cache.gc import InUse
from distill_ray.cache.inventory import Root, roots
from distill_ray.cache.live_runs import RunWatcher
from distill_ray.cache.store import CacheStore
from tests.cache.made_cache import FUNCTION, OTHER, key, live_run, put_dead_heartbeat, put_run, run_id


def look(store: CacheStore, watcher: RunWatcher | None = None) -> InUse:
    return (watcher or RunWatcher()).look(roots(store.storage))


def test_in_a_root_without_runs_nothing_is_in_use(store: CacheStore) -> None:
    assert look(store) == InUse()


def test_a_run_that_beats_lives_and_says_what_it_uses(store: CacheStore) -> None:
    with live_run(store, ["a"], [FUNCTION, OTHER]) as run:
        in_use = look(store)
    assert in_use == InUse(
        frozenset({run}), frozenset({key("a")}), frozenset({FUNCTION.signature, OTHER.signature})
    )
    assert in_use.wrote(f"{run}-000-00001-abc")
    assert not in_use.wrote("20200101T000000-0123-000-00001-abc")


def test_a_run_that_ended_or_was_killed_or_left_no_heartbeat_does_not_live(store: CacheStore) -> None:
    with live_run(store):
        pass
    put_dead_heartbeat(store, run_id())
    put_run(store, run_id())
    assert look(store) == InUse()


def test_of_a_run_that_does_not_say_which_functions_it_applies_any_may_be_in_use(store: CacheStore) -> None:
    with live_run(store, functions=()):
        in_use = look(store)
    assert in_use.functions is None
    assert in_use.uses("any")


def test_a_dead_run_is_known_at_once_the_second_time(store: CacheStore) -> None:
    put_dead_heartbeat(store, run_id())
    waits: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    watcher = RunWatcher(clock=lambda: clock[0], sleep=sleep)
    assert look(store, watcher) == InUse()
    assert waits
    waits.clear()
    clock[0] += 1
    assert look(store, watcher) == InUse()
    assert not waits


def test_a_live_run_is_seen_to_live_anew_at_every_look(store: CacheStore) -> None:
    watcher = RunWatcher()
    with live_run(store) as run:
        assert look(store, watcher).runs == {run}
        assert look(store, watcher).runs == {run}
    assert look(store, watcher).runs == set()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"run": 1}'])
def test_a_heartbeat_that_cannot_be_read_is_watched_like_any_other(store: CacheStore, content: bytes) -> None:
    run = run_id()
    store.storage.publish(paths.heartbeat(run), content)
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] < 3:  # it changes for a while
            store.storage.publish(paths.heartbeat(run), content + b" " * int(1000 * clock[0]))

    watcher = RunWatcher(clock=lambda: clock[0], sleep=sleep)
    in_use = look(store, watcher)
    assert in_use.runs == {run}
    assert in_use.functions is None
    clock[0] = 100
    assert look(store, watcher).runs == set()


def test_a_run_that_began_and_ended_between_two_looks_counts_the_second_time(store: CacheStore) -> None:
    watcher = RunWatcher()
    look(store, watcher)
    with live_run(store, ["a"]) as run:
        pass
    put_run(store, run_id())
    put_dead_heartbeat(store, dead := run_id())
    assert watcher.look_again(roots(store.storage)).runs == {run, dead}
    assert watcher.look_again(roots(store.storage)) == InUse()


def test_runs_within_roots_of_their_own_count_too(store: CacheStore) -> None:
    below = Root("scopes/x", CacheStore(store.storage.below("scopes/x")))
    with live_run(below.store) as run:
        assert look(store).runs == {run}
