"""SIGKILL at any moment costs at most the flush interval: no row is lost, doubled or wrong, and nothing that
was stored is computed again.

A root is killed again and again: each run goes on from where the one before was killed. Units of every kind
are in the pipeline (`noted_work`). The usual suite kills a few runs; a hundred of them are killed, and the
table in docs/reliability.md is written, by ::

    DISTILL_RAY_WRITE_TABLES=1 pytest -m slow tests/acceptance/test_kill.py
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.measured_table import write_table
from tests.acceptance.noted_runs import Site, kill_everything, kill_one
from tests.acceptance.noted_work import EVERYTHING

FLUSH_SECONDS = 0.5
WRITE_SECONDS = 1.5
"""Time that a call under way, gathering, writing and syncing may take on cores with nothing else to do."""

KILLS = 4
"""Kills of one root at least, before a run is let end."""

HOWS = {
    "inline: the process": ("inline", kill_one),
    "Ray: the driver alone": ("ray", kill_one),
    "Ray: driver, actors and Ray at once": ("ray", kill_everything),
}

CHAINS = {"inline: the process": 19, "Ray: the driver alone": 3, "Ray: driver, actors and Ray at once": 3}
"""How many roots are killed in each way: together a hundred kills."""


@dataclass
class Cost:
    """What kills of one kind came to.

    Attributes:
        kills: how many.
        runs: runs that were let end, each of which gave the right rows.
        work: pieces of work that had been done by runs that were killed.
        repeated: how many of them were done again.
        stored: how many of them stood in parts when their run was killed.
        stored_repeated: how many of these were done again.
        oldest: seconds before the kill at which the oldest was done that was done again.
    """

    kills: int = 0
    runs: int = 0
    work: int = 0
    repeated: int = 0
    stored: int = 0
    stored_repeated: int = 0
    oldest: float = 0.0

    def add(self, site: Site) -> None:
        """Take in what became of a root on which the last run has ended."""
        self.runs += 1
        done = site.work()
        number = {f"r{position}": position for position in range(len(site.runs))}
        for death in site.deaths:
            again = {work.piece for work in done if number[work.run] > number[death.run]}
            lost = [work for work in done if work.run == death.run and work.at <= death.at]
            repeated = [work for work in lost if work.piece in again]
            self.kills += 1
            self.work += len(lost)
            self.repeated += len(repeated)
            self.stored += len(death.stored)
            self.stored_repeated += len(death.stored & again)
            self.oldest = max(self.oldest, *(death.at - work.at for work in repeated), 0.0)


@dataclass
class Costs:
    """What was measured, by how runs were killed."""

    of: dict[str, Cost] = field(default_factory=dict)

    def table(self) -> list[dict[str, Any]]:
        return [
            {
                "what is killed": how,
                "kills": cost.kills,
                "runs let end, each with exactly the right rows": cost.runs,
                "work of the killed runs": f"{cost.work:,}",
                "of this done again": f"{cost.repeated:,}",
                "stored work done again": f"{cost.stored_repeated} of {cost.stored:,}",
                "oldest work done again": f"{cost.oldest:.2f} s",
            }
            for how, cost in self.of.items()
        ]


@pytest.fixture(scope="module")
def costs() -> Iterator[Costs]:
    costs = Costs()
    yield costs
    if costs.of:
        write_table("acceptance/test_kill.py", costs.table())


def kill_chain(folder: Path, how: str, kills: int, seed: int) -> Cost:
    """Kill so many runs at random moments; let one run end on each root, and see what that cost."""
    engine, kill = HOWS[how]
    drawn, longest = random.Random(f"{how} {seed}"), 2.5 if engine == "inline" else 5.0
    cost = Cost()
    environment = {"DISTILL_RAY_FLUSH_SECONDS": str(FLUSH_SECONDS), "DISTILL_RAY_BEAT_SECONDS": "0.25"}
    while cost.kills < kills:
        site = Site(folder / f"root-{cost.runs}", engine, environment=environment)
        try:
            while len(site.deaths) < kills - cost.kills:
                run = site.start()
                if drawn.random() > 0.15:  # else also while it starts, or is about to
                    site.wait_for_work_of(run)
                time.sleep(drawn.uniform(0, longest))
                if not site.kill(run, kill):
                    break
            site.result(site.start())
            assert {work.piece for work in site.work()} == EVERYTHING
            cost.add(site)
        finally:
            site.end()
    return cost


def check(cost: Cost) -> None:
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert not cost.stored_repeated
    assert cost.oldest < FLUSH_SECONDS + WRITE_SECONDS * busy, "what had been flushed was done again"


@pytest.mark.parametrize(
    ("how", "kills"), [("inline: the process", 1), ("Ray: driver, actors and Ray at once", 1)]
)
def test_a_killed_run_is_resumed(tmp_path: Path, how: str, kills: int) -> None:
    check(kill_chain(tmp_path, how, kills, seed=0))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("how", "seed"), [(how, seed) for how in HOWS for seed in range(1, CHAINS[how] + 1)])
def test_a_run_killed_at_any_moment_is_resumed(tmp_path: Path, costs: Costs, how: str, seed: int) -> None:
    cost = kill_chain(tmp_path, how, KILLS, seed)
    total = costs.of.setdefault(how, Cost())
    for name, value in vars(cost).items():
        before = getattr(total, name)
        setattr(total, name, max(before, value) if name == "oldest" else before + value)
    check(cost)
