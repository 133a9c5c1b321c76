"""The watcher tells what another run has stored, how far it is, and when it is there no more."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_ray.cache import paths
from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.heartbeat import Beat
from distill_ray.cache.lease import Leases
from distill_ray.cache.store import CacheStore
from distill_ray.engine import single_flight
from distill_ray.engine.messages import Event, UnitsFound
from distill_ray.engine.single_flight import SingleFlight, Watcher
from distill_ray.plan import StepPlan
from tests.cache.test_store import FUNCTION, KEY, manifest_of, write_part

BEAT_SECONDS = 0.02
LONG = 30.0
STEP = StepPlan("work", "compute", "nothing is stored", FUNCTION, KEY)


class Holder:
    """The other run."""

    def __init__(self, store: CacheStore) -> None:
        self._storage = store.storage
        self._beat = Beat(run="r0", beat_seconds=LONG, host="host", pid=7, process="")
        self.say()
        Leases(store.storage, "r0", LONG).acquire({KEY: "theirs"})

    def say(self, **what: object) -> None:
        self._beat = self._beat.model_copy(update={"beat": self._beat.beat + 1, **what})
        self._storage.publish(paths.heartbeat("r0"), self._beat.to_json())


class Watching:
    """This run, which waits."""

    def __init__(self, store: CacheStore) -> None:
        self.flight = SingleFlight(StoreCatalog(store), Leases(store.storage, "r1", LONG), BEAT_SECONDS)
        self.flight.take({KEY: "work"})
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.watcher = Watcher(self.flight, {"work": STEP}, self._events.put)

    def next(self) -> UnitsFound:
        event = self._events.get(timeout=20)
        assert isinstance(event, UnitsFound)
        return event

    def next_with_parts(self) -> UnitsFound:
        while not (event := self.next()).parts:
            assert event.holder
        return event


@pytest.fixture
def holder(store: CacheStore) -> Holder:
    return Holder(store)


@pytest.fixture
def watching(holder: Holder, store: CacheStore) -> Iterator[Watching]:
    watching = Watching(store)
    watching.watcher.start()
    yield watching
    watching.watcher.stop()


def test_it_says_at_once_who_computes_a_step_and_then_how_far_that_run_is(
    watching: Watching, holder: Holder
) -> None:
    assert watching.watcher.awaited == {"work"}
    assert watching.next().holder == "run r0 on host host, pid 7: 0 rows of step 'theirs'"
    holder.say(steps={"theirs": 1500})
    while (said := watching.next().holder) == "run r0 on host host, pid 7: 0 rows of step 'theirs'":
        pass
    assert said == "run r0 on host host, pid 7: 1,500 rows of step 'theirs'"


def test_it_tells_of_each_part_once(watching: Watching, store: CacheStore) -> None:
    first = write_part(store, "r0-0-1")
    assert [part for part, _ in watching.next_with_parts().parts] == [first]
    second = write_part(store, "r0-0-2")
    assert [part for part, _ in watching.next_with_parts().parts] == [second]


def test_it_tells_what_was_stored_last_once_the_output_is_written(
    watching: Watching, store: CacheStore
) -> None:
    part = write_part(store, "r0-0-1")
    store.write_manifest(manifest_of(part), replace=False)
    told: list[UnitsFound] = [watching.next()]
    while told[-1].holder:
        told.append(watching.next())
    assert [found for event in told for found, _ in event.parts] == [part]


def test_a_step_whose_run_ended_is_this_runs_own(
    watching: Watching, holder: Holder, store: CacheStore
) -> None:
    holder.say(status="ended")
    while watching.next().holder:
        pass
    assert list(store.storage.sizes(paths.LEASES_FOLDER)) == [f"{KEY}.1", f"{KEY}.2"]
    watching.flight.written(KEY)
    assert store.storage.sizes(paths.LEASES_FOLDER) == {}


def test_a_storage_that_fails_for_a_while_is_asked_again(watching: Watching, holder: Holder) -> None:
    leases = Path(watching.flight.catalog.store.storage.url, "leases")
    watching.next()
    leases.rename(leases.with_name("aside"))
    leases.touch()
    holder.say(status="ended")
    leases.unlink()
    leases.with_name("aside").rename(leases)
    while watching.next().holder:
        pass


def test_a_storage_that_fails_for_good_ends_the_wait(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "LOOKS", 3)
    leases = Path(watching.flight.catalog.store.storage.url, "leases")
    leases.rename(leases.with_name("aside"))
    leases.touch()
    while (event := watching.next()).failure is None:
        pass
    assert event.failure.step == "work"
    assert "another run computes it, which cannot be watched any more: StorageError" in event.failure.message


def test_a_run_that_waits_for_none_looks_at_nothing(store: CacheStore) -> None:
    watching = Watching(store)
    assert watching.watcher.awaited == set()
    watching.watcher.start()
    watching.watcher.stop()
