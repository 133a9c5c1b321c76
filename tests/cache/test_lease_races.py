"""Processes that need the same outputs at once: each output is computed once, and again only after a kill."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

import pytest

from distill_ray.cache import paths
from distill_ray.cache.heartbeat import Beat, Heartbeat
from distill_ray.cache.lease import Held, Leases
from distill_ray.storage import LocalStorage, Storage, open_storage
from tests.gcs_server import GcsRoot

KEYS = [f"{number:02x}" * 32 for number in range(6)]
COMPUTING_SECONDS = 0.05
SPAWN = multiprocessing.get_context("spawn")


class Line(NamedTuple):
    """What a run has noted down of an output."""

    what: str
    run: str
    key: str


@pytest.fixture(params=["local", "gcs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(str(tmp_path / "root"))
    root: GcsRoot = request.getfixturevalue("gcs_root")
    return open_storage(root.url, root.storage_options)


def need_all(storage: Storage, run: str, log: Path, beat_seconds: float, seen: bool) -> None:
    """Be a run that needs all outputs."""
    beat = Beat(run=run, beat_seconds=beat_seconds)
    heartbeat = Heartbeat(storage, beat if seen else beat.model_copy(update={"process": ""}))
    heartbeat.start()
    leases = Leases(storage, run, beat_seconds)
    wanted = dict.fromkeys(random.Random(run).sample(KEYS, len(KEYS)), "step")
    while wanted:
        for key, found in leases.acquire(wanted).items():
            if isinstance(found, Held):
                compute_unless_done(storage, run, key, log)
                leases.release(found)
                del wanted[key]
        time.sleep(0.02)
    heartbeat.end()


def compute_unless_done(storage: Storage, run: str, key: str, log: Path) -> None:
    try:
        storage.read(f"outputs/{key}")
    except FileNotFoundError:
        note(log, "begin", run, key)
        time.sleep(COMPUTING_SECONDS)
        storage.put_if_absent(f"outputs/{key}", run.encode())
        note(log, "end", run, key)


def note(log: Path, *words: str) -> None:
    with log.open("ab", buffering=0) as file:
        file.write(" ".join(words).encode() + b"\n")


def lines(log: Path) -> list[Line]:
    return [Line(*line.split()) for line in log.read_text().splitlines()] if log.exists() else []


def start(storage: Storage, run: str, log: Path, beat_seconds: float, seen: bool) -> SpawnProcess:
    started = SPAWN.Process(target=need_all, args=(storage, run, log, beat_seconds, seen))
    started.start()
    return started


def test_without_a_kill_no_output_is_computed_twice(storage: Storage, tmp_path: Path) -> None:
    log = tmp_path / "log"
    runs = [start(storage, f"run-{number}", log, 2.0, seen=False) for number in range(4)]
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    assert Counter(line.key for line in lines(log) if line.what == "begin") == dict.fromkeys(KEYS, 1)
    assert storage.sizes(paths.LEASES_FOLDER) == {}


@pytest.mark.parametrize("seen", [True, False], ids=["on this machine", "on another machine"])
def test_an_output_is_computed_again_only_where_its_run_was_killed(
    storage: Storage, tmp_path: Path, seen: bool
) -> None:
    log = tmp_path / "log"
    beat_seconds = 2.0 if seen else 0.5
    runs = {f"run-{n}": start(storage, f"run-{n}", log, beat_seconds, seen) for n in range(3)}
    killed: set[str] = set()
    deadline = time.monotonic() + 60
    while any(run.is_alive() for run in runs.values()):
        assert time.monotonic() < deadline
        begun = [line for line in lines(log) if line.what == "begin" and line.run not in killed]
        if begun and len(killed) < 2 and runs[begun[-1].run].is_alive():
            runs[begun[-1].run].kill()
            killed.add(begun[-1].run)
        time.sleep(0.02)
    assert [runs[name].exitcode for name in runs if name not in killed] == [0]
    found = lines(log)
    for key in KEYS:
        assert len({line.run for line in found if line.key == key and line.run not in killed}) <= 1
        assert storage.read(f"outputs/{key}")
    assert max(Counter(line.key for line in found if line.what == "begin").values()) <= 1 + len(killed)
