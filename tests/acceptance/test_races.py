"""Two to four processes run one pipeline on one root at the same time: they compute each unit once.

Where one of them is killed, what it had not flushed is computed again by another, and nothing else. The usual
suite runs a race in which one is killed; all races are run, and docs/reliability.md is written, by ::

    DISTILL_RAY_WRITE_TABLES=1 pytest -m slow tests/acceptance/test_races.py
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.measured_table import write_table
from tests.acceptance.noted_runs import Site, kill_one
from tests.acceptance.noted_work import EVERYTHING

FLUSH_SECONDS = 0.5
WRITE_SECONDS = 1.5
"""Time that a call under way, gathering, writing and syncing may take on a busy machine of two cores."""

ATTACHED = "Ray: drivers on one cluster"

RACES = {"inline": 16, ATTACHED: 4, "Ray: each driver with its own": 2}
"""Repetitions of each kind; in every other one a process is killed."""


@dataclass(frozen=True)
class Race:
    """A race that was run.

    Attributes:
        processes: how many were started.
        survivors: how many gave rows: the right ones.
        deaths: how many were killed.
        repeated: pieces of work that were done a second time.
        foreign: how many of these no killed run had done.
        stored_repeated: how many of these stood in parts when a run was killed.
        oldest: seconds before the kill at which the oldest was done that was done again.
        takeover: seconds from the kill to the next work of another run; None: there was nothing left to do.
    """

    processes: int
    survivors: int
    deaths: int
    repeated: int
    foreign: int
    stored_repeated: int
    oldest: float
    takeover: float | None


@dataclass
class Races:
    """What was measured, by kind and whether a process was killed."""

    of: dict[tuple[str, bool], list[Race]] = field(default_factory=dict)

    def table(self) -> list[dict[str, Any]]:
        return [_line(kind, kills, races) for (kind, kills), races in self.of.items()]


def _line(kind: str, kills: bool, races: list[Race]) -> dict[str, Any]:
    takeovers = [race.takeover for race in races if race.takeover is not None]
    done = len(EVERYTHING)
    return {
        "engine": kind,
        "races": len(races),
        "processes": sum(race.processes for race in races),
        "killed": sum(race.deaths for race in races),
        "ended, each with exactly the right rows": sum(race.survivors for race in races),
        "work done twice": f"{sum(race.repeated for race in races):,} of {done * len(races):,}",
        "of this stored before the kill": sum(race.stored_repeated for race in races) if kills else "",
        "oldest work done again": f"{max(race.oldest for race in races):.2f} s" if kills else "",
        "another went on after": f"{max(takeovers):.1f} s at most" if takeovers else "",
    }


@pytest.fixture(scope="module")
def races() -> Iterator[Races]:
    races = Races()
    yield races
    if races.of:
        write_table("acceptance/test_races.py", races.table())


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Where a race of the asked kind is run."""
    kind = getattr(request, "param", "inline")
    environment = {"DISTILL_RAY_FLUSH_SECONDS": str(FLUSH_SECONDS), "DISTILL_RAY_BEAT_SECONDS": "0.5"}
    if kind == ATTACHED:
        request.getfixturevalue("local_ray")
        import ray

        environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    site = Site(tmp_path / "site", "inline" if kind == "inline" else "ray", environment=environment)
    yield site
    site.end()


def run_race(site: Site, processes: int, kill_seed: int | None) -> Race:
    """Start runs at the same time, kill one of them if so asked, and see what the others give and did."""
    runs = [site.start() for _ in range(processes)]
    if kill_seed is not None:
        _kill_one_of(site, runs, random.Random(kill_seed))
    survivors = [run for run in runs if run.poll() is None or run.returncode == 0]
    for run in survivors:
        site.result(run)
    repeated = site.repeated()
    assert max(repeated.values(), default=0) <= 1
    work = site.work()
    death = site.deaths[0] if site.deaths else None
    lost = {each.piece: each.at for each in work if death and each.run == death.run}
    ages = [death.at - lost[piece] for piece in repeated if death and piece in lost]
    after = [each.at - death.at for each in work if death and each.run != death.run and each.at > death.at]
    return Race(
        processes=processes,
        survivors=len(survivors),
        deaths=len(site.deaths),
        repeated=repeated.total(),
        foreign=len(set(repeated) - set(lost)),
        stored_repeated=len(set(repeated) & death.stored) if death else 0,
        oldest=max(ages, default=0.0),
        takeover=min(after, default=None),
    )


def _kill_one_of(site: Site, runs: list[subprocess.Popen[str]], drawn: random.Random) -> None:
    """Kill, at a random moment, mostly the run that works, sometimes one that waits."""
    while not site.work():
        assert all(run.poll() is None for run in runs), "a run ended before there was any work"
        time.sleep(0.01)
    working = runs[int(site.work()[0].run[1:])]
    time.sleep(drawn.uniform(0, 2.5))
    assert site.kill(working if drawn.random() < 0.75 else drawn.choice(runs), kill_one)


def check(race: Race) -> None:
    assert race.survivors == race.processes - race.deaths
    assert race.foreign == 0, "work was done twice that no killed run had done"
    assert race.stored_repeated == 0
    assert race.oldest < FLUSH_SECONDS + WRITE_SECONDS, "what had been flushed was done again"


def test_the_others_go_on_where_one_of_three_processes_is_killed(site: Site) -> None:
    race = run_race(site, 3, kill_seed=0)
    check(race)
    assert race.deaths == 1


@pytest.mark.slow
def test_a_process_computes_what_another_one_computes_if_so_asked(site: Site) -> None:
    first = site.start()
    site.wait_for_work_of(first)
    second = site.start("--on-busy", "compute")
    assert site.wait_for_work_of(second)
    assert first.poll() is None
    for run in (first, second):
        site.result(run)
    assert max(site.repeated().values(), default=0) <= 1, "each does each piece once at most"


@pytest.mark.slow
def test_a_process_refuses_to_run_beside_another_one_if_so_asked(site: Site) -> None:
    first = site.start()
    site.wait_for_work_of(first)
    second = site.start("--on-busy", "fail")
    assert second.wait(60) == 1
    assert f"pid {first.pid}" in (site.folder / "r1.err").read_text(encoding="utf-8")
    site.result(first)
    assert not site.repeated()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("site", "number"),
    [(kind, number) for kind in RACES for number in range(RACES[kind])],
    indirect=["site"],
)
def test_processes_that_race_compute_each_unit_once(
    request: pytest.FixtureRequest, site: Site, races: Races, number: int
) -> None:
    kind, kills = request.node.callspec.params["site"], number % 2 == 1
    processes = 2 + number // 2 % 3 if kind != "Ray: each driver with its own" else 2
    race = run_race(site, processes, kill_seed=number if kills else None)
    races.of.setdefault((kind, kills), []).append(race)
    check(race)
    if not kills:
        assert race.repeated == 0
