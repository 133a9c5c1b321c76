"""A run's heartbeat changes as long as the run goes on, and says at last that it ended."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distill_ray.cache.heartbeat import Beat, Heartbeat, read_heartbeat
from distill_ray.errors import StorageError
from distill_ray.storage import LocalStorage

QUICK = 0.02


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(str(tmp_path / "root"))


def beat_of(storage: LocalStorage, run: str = "run") -> Beat:
    content = read_heartbeat(storage, run)
    assert content is not None
    beat = Beat.from_json(content)
    assert beat is not None
    return beat


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(QUICK / 4)


def wait_for_beat(storage: LocalStorage, number: int) -> Beat:
    wait_until(lambda: beat_of(storage).beat >= number)
    return beat_of(storage)


def test_the_first_beat_stands_when_the_run_begins(storage: LocalStorage) -> None:
    heartbeat = Heartbeat(storage, Beat(run="run", pipeline="pipeline", outputs=("a", "b"), beat_seconds=60))
    heartbeat.start()
    beat = beat_of(storage)
    assert (beat.run, beat.pipeline, beat.outputs, beat.status) == ("run", "pipeline", ("a", "b"), "running")
    assert (beat.host, beat.pid) == (socket.gethostname(), os.getpid())
    heartbeat.end()


def test_it_changes_with_each_beat_and_says_how_far_the_steps_are(storage: LocalStorage) -> None:
    heartbeat = Heartbeat(storage, Beat(run="run", beat_seconds=QUICK))
    heartbeat.start()
    assert wait_for_beat(storage, 2).steps == {}
    heartbeat.advance("load", 10)
    heartbeat.advance("generation", 3)
    heartbeat.advance("load", 20)
    assert wait_for_beat(storage, beat_of(storage).beat + 2).steps == {"load": 20, "generation": 3}
    heartbeat.end()


def test_the_last_beat_says_that_the_run_ended(storage: LocalStorage) -> None:
    heartbeat = Heartbeat(storage, Beat(run="run", beat_seconds=60))
    heartbeat.start()
    heartbeat.advance("load", 7)
    heartbeat.end()
    last = read_heartbeat(storage, "run")
    assert beat_of(storage).status == "ended"
    assert beat_of(storage).steps == {"load": 7}
    time.sleep(0.05)
    assert read_heartbeat(storage, "run") == last


def test_it_goes_on_once_a_storage_that_failed_is_there_again(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "no disk").touch()
    mount(tmp_path, "disk")
    storage = LocalStorage(str(tmp_path / "root"))
    heartbeat = Heartbeat(storage, Beat(run="run", beat_seconds=QUICK))
    heartbeat.start()
    mount(tmp_path, "no disk")
    wait_until(lambda: "heartbeat.json" in heartbeat.trouble)
    mount(tmp_path, "disk")
    wait_until(lambda: not heartbeat.trouble)
    wait_for_beat(storage, beat_of(storage).beat + 2)
    heartbeat.end()
    assert beat_of(storage).status == "ended"


def mount(folder: Path, disk: str) -> None:
    """Have ``root`` be another disk, from one moment to the next."""
    (folder / "next").symlink_to(folder / disk)
    (folder / "next").replace(folder / "root")


def test_a_run_that_cannot_write_its_first_beat_does_not_begin(storage: LocalStorage) -> None:
    Path(storage.url).write_text("a file")
    with pytest.raises(StorageError, match=r"heartbeat\.json"):
        Heartbeat(storage, Beat(run="run")).start()


def test_a_run_that_never_began_has_no_heartbeat(storage: LocalStorage) -> None:
    assert read_heartbeat(storage, "run") is None


@given(st.builds(Beat))
def test_a_beat_is_read_back_as_it_was_written(beat: Beat) -> None:
    assert Beat.from_json(beat.to_json()) == beat


@given(st.binary())
def test_what_is_no_beat_is_told(data: bytes) -> None:
    assert Beat.from_json(data) is None


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 3600])
def test_a_beat_that_others_could_not_wait_for_is_refused(seconds: float) -> None:
    with pytest.raises(ValidationError):
        Beat(run="run", beat_seconds=seconds)
