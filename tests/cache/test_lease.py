"""One run computes an output at a time; whoever died or ended is followed, and nobody else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distill_ray.cache import paths
from distill_ray.cache.heartbeat import Beat
from distill_ray.cache.lease import Busy, Held, Leases
from distill_ray.errors import StorageError
from distill_ray.storage import LocalStorage, Storage, open_storage
from tests.gcs_server import GcsRoot
from tests.storage.losing_proxy import LosingProxy

KEY = "ab" * 32
OTHER = "cd" * 32
BEAT_SECONDS = 2.0


class Clock:
    """Time as a test would have it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A run that beats when told to."""

    def __init__(self, storage: Storage, name: str, clock: Clock) -> None:
        self.storage = storage
        self.leases = Leases(storage, name, BEAT_SECONDS, clock)
        self._beat = Beat(run=name, beat_seconds=BEAT_SECONDS, host="host", pid=7, process="")
        self.beat()

    def beat(self, **changes: object) -> None:
        self._beat = self._beat.model_copy(update={"beat": self._beat.beat + 1, **changes})
        self.storage.publish(paths.heartbeat(self._beat.run), self._beat.to_json())

    def end(self) -> None:
        self.beat(status="ended")

    def acquire(self, key: str = KEY) -> Held | Busy:
        return self.leases.acquire({key: "generation"})[key]

    def holds(self, key: str = KEY) -> bool:
        return isinstance(self.acquire(key), Held)


@pytest.fixture(params=["local", "gcs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(str(tmp_path / "root"))
    root: GcsRoot = request.getfixturevalue("gcs_root")
    return open_storage(root.url, root.storage_options)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def first(storage: Storage, clock: Clock) -> Run:
    return Run(storage, "first", clock)


@pytest.fixture
def second(storage: Storage, clock: Clock) -> Run:
    return Run(storage, "second", clock)


def test_the_first_to_ask_holds_it_and_the_next_is_told_who_does(first: Run, second: Run) -> None:
    assert first.acquire() == Held(KEY, (1,))
    first.beat(steps={"generation": 1200, "other": 5})
    busy = second.acquire()
    assert isinstance(busy, Busy)
    assert (busy.lease.run, busy.epoch) == ("first", 1)
    assert busy.holder == "run first on host host, pid 7: 1,200 rows of step 'generation'"


def test_several_outputs_are_asked_for_at_once(first: Run, second: Run) -> None:
    assert second.holds(OTHER)
    found = first.leases.acquire({KEY: "a", OTHER: "b"})
    assert isinstance(found[KEY], Held)
    assert isinstance(found[OTHER], Busy)
    assert first.leases.acquire({}) == {}


def test_who_asks_again_still_holds_it(first: Run, storage: Storage) -> None:
    assert first.acquire() == first.acquire()
    assert list(storage.sizes(paths.LEASES_FOLDER)) == [f"{KEY}.1"]


def test_a_run_that_beats_keeps_what_it_holds(first: Run, second: Run, clock: Clock) -> None:
    assert first.holds()
    for _ in range(10):
        assert not second.holds()
        clock.now += 7
        first.beat()


def test_a_run_that_falls_silent_is_followed_after_four_beats(first: Run, second: Run, clock: Clock) -> None:
    assert first.holds()
    assert not second.holds()
    clock.now += 7.9
    assert not second.holds()
    clock.now += 0.1
    assert second.acquire() == Held(KEY, (1, 2))


def test_one_that_went_on_too_late_is_told_that_another_has_followed(
    first: Run, second: Run, clock: Clock
) -> None:
    assert first.holds()
    second.acquire()
    clock.now += 8
    assert second.holds()
    first.beat()
    assert not first.holds()
    assert second.holds()


def test_a_run_that_ended_is_followed_at_once(first: Run, second: Run) -> None:
    assert first.holds()
    first.end()
    assert second.acquire() == Held(KEY, (1, 2))


def test_a_holder_without_a_heartbeat_is_followed_after_four_beats(
    first: Run, second: Run, clock: Clock, storage: Storage
) -> None:
    assert first.holds()
    storage.delete([paths.heartbeat("first")])
    busy = second.acquire()
    assert isinstance(busy, Busy)
    assert busy.holder == "run first, which has no heartbeat"
    clock.now += 8
    assert second.holds()


def test_what_is_no_lease_keeps_nobody_from_going_on(first: Run, second: Run, storage: Storage) -> None:
    for name in ("README.md", f"{KEY}", f"{KEY}.x", f"{KEY}.0", f"{KEY}.01", ".1"):
        storage.publish(f"{paths.LEASES_FOLDER}/{name}", b"")
    storage.publish(paths.lease(KEY, 3), b'{"run": "x", "beat_seconds": 1e300}')
    assert first.acquire() == Held(KEY, (3, 4))
    assert not second.holds()


def test_of_several_that_follow_a_dead_run_exactly_one_holds(storage: Storage, clock: Clock) -> None:
    Run(storage, "dead", clock).acquire()
    runs = [Run(storage, f"run-{number}", clock) for number in range(6)]
    for run in runs:
        assert not run.holds()
    clock.now += 8
    with ThreadPoolExecutor(len(runs)) as pool:
        assert list(pool.map(Run.holds, runs)).count(True) == 1


def test_it_is_known_whether_others_had_what_is_asked_for(first: Run, second: Run, storage: Storage) -> None:
    """Else what was found before the leases were taken is all that there is."""
    first.acquire()
    assert not first.leases.followed
    second.acquire()
    assert second.leases.followed
    first.end()
    third = Run(storage, "third", Clock())
    assert third.holds()
    assert third.leases.followed


def test_what_was_released_leaves_nothing_and_is_free(first: Run, second: Run, storage: Storage) -> None:
    assert first.holds()
    first.end()
    held = second.acquire()
    assert isinstance(held, Held)
    second.leases.release(held)
    assert storage.sizes(paths.LEASES_FOLDER) == {}
    assert Run(storage, "third", Clock()).acquire() == Held(KEY, (1,))


def test_who_computes_an_output_knows_whether_others_wait_for_it(
    first: Run, second: Run, storage: Storage
) -> None:
    assert first.leases.awaited([KEY, OTHER]) == set()
    assert first.holds()
    second.leases.wait({KEY: "step"})
    second.leases.wait({KEY: "step"})
    assert first.leases.awaited([KEY, OTHER]) == {KEY}
    assert first.acquire() == Held(KEY, (1,))
    second.leases.leave([KEY])
    assert first.leases.awaited([KEY, OTHER]) == set()
    assert list(storage.sizes(paths.LEASES_FOLDER)) == [f"{KEY}.1"]


def test_names_of_another_run_do_not_steer_the_terminal(first: Run, second: Run) -> None:
    first.leases.acquire({KEY: "a\x1b[2J\nb"})
    busy = second.acquire()
    assert isinstance(busy, Busy)
    assert busy.holder.endswith("0 rows of step 'a?[2J?b'")


def test_a_lease_whose_reply_was_lost_is_held(gcs_root: GcsRoot, gcs_endpoint: str, clock: Clock) -> None:
    proxy = LosingProxy(gcs_endpoint)
    proxy.start()
    try:
        lossy = open_storage(gcs_root.url, {**gcs_root.storage_options, "endpoint_url": proxy.url})
        first = Run(lossy, "first", clock)
        for number in range(2):
            proxy.lose_replies(number + 1)
            assert first.holds(f"{number}" * 64)
        assert proxy.lost == 3
    finally:
        proxy.close()
    second = Run(open_storage(gcs_root.url, gcs_root.storage_options), "second", clock)
    assert not second.holds("1" * 64)


def test_what_was_taken_before_the_storage_failed_is_found_again(tmp_path: Path, clock: Clock) -> None:
    storage = LocalStorage(str(tmp_path / "root"))
    first = Run(storage, "first", clock)
    assert first.holds()
    leases, aside = tmp_path / "root" / "leases", tmp_path / "aside"
    leases.rename(aside)
    leases.touch()
    with pytest.raises(StorageError, match="leases"):
        first.acquire()
    leases.unlink()
    aside.rename(leases)
    assert first.acquire() == Held(KEY, (1,))
