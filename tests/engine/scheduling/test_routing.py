"""Routed rows in the scheduler by itself, whatever order events come in."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.engine.actions import SendWork
from distill_ray.engine.messages import WorkDone, WorkRecord
from distill_ray.engine.scheduling.routing import RouteSpec
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec
from distill_ray.graph.streams import Convergence
from tests.engine.scheduling.test_recovery import Mortals, stored_output
from tests.engine.scheduling.test_scheduler import Replicas, digest_of, output_of

Choose: TypeAlias = Callable[[int], frozenset[str]]

ADDED = {"a": 1_000, "b": 20_000, "c": 300_000, "join": 4_000_000}
"""What each step adds to its rows: the sum says which ones had a row."""


@dataclass
class Adding(Replicas):
    """Each step adds something of its own to the rows that belong together."""

    by_row: bool = False

    def work(self, action: SendWork) -> WorkDone:
        if action.step in self.generators:
            return super().work(action)
        self.unwritten.setdefault((action.step, action.replica), []).append(action.work.block)
        rows = [ADDED[action.step] + row for row in self.read(action)]
        self.rows[action.work.block] = rows
        batches = action.work.batches
        counts = (1,) * len(rows) if self.by_row else tuple(batch.rows for batch in batches)
        record = WorkRecord(
            len(batches), counts, b"".join(map(digest_of, rows)), nbytes=len(rows), seconds=0.001
        )
        return WorkDone(action.step, action.replica, action.work.block, record)


def routed(
    batch: int, sizes: tuple[int, ...], replicas: int, by_row: bool, choose: Choose, live: int
) -> Scheduler:
    """Three steps that rows are routed to, and one that joins them."""
    columns = ("n",) if by_row else None
    steps = [
        StepSpec(name, ("load",), batch_size=size, replicas=replicas, branches=(name,), columns=columns)
        for name, size in zip("abc", sizes, strict=False)
    ]
    join = Convergence("load", tuple(frozenset(name) for name in "abc"))
    return Scheduler(
        [
            StepSpec("load", kind="generator"),
            *steps,
            StepSpec("join", ("a", "b", "c"), batch_size=sizes[3], converges=join, columns=columns),
        ],
        live_bytes=live,
        routes=[RouteSpec("load", batch, choose)],
    )


def chosen_by_chance(batches: int, seed: int) -> list[frozenset[str]]:
    dice = random.Random(seed)
    return [frozenset(dice.sample("abc", dice.randint(1, 3))) for _ in range(batches)]


@given(
    rows=st.integers(0, 120),
    batch=st.integers(1, 20),
    sizes=st.tuples(*[st.integers(1, 20)] * 4),
    replicas=st.integers(1, 3),
    by_row=st.booleans(),
    live_bytes=st.sampled_from([0, 50, 10_000]),
    seed=st.integers(0, 10_000),
)
def test_rows_that_belong_together_are_joined_in_the_order_of_the_input(
    rows: int, batch: int, sizes: tuple[int, ...], replicas: int, by_row: bool, live_bytes: int, seed: int
) -> None:
    chosen = chosen_by_chance(rows // batch + 1, seed)
    scheduler = routed(batch, sizes, replicas, by_row, chosen.__getitem__, live_bytes)
    actors = Adding({"load": list(range(rows))}, seed=seed, by_row=by_row)
    actors.run(scheduler)
    assert scheduler.failure is None
    for name in "abc":
        wanted = [ADDED[name] + n for n in range(rows) if name in chosen[n // batch]]
        assert output_of(scheduler, actors, name) == wanted
    assert output_of(scheduler, actors, "join") == [
        ADDED["join"] + sum(ADDED[name] + n for name in chosen[n // batch]) for n in range(rows)
    ]


@settings(deadline=None)
@given(
    rows=st.integers(0, 80),
    batch=st.integers(1, 12),
    sizes=st.tuples(*[st.integers(1, 12)] * 4),
    by_row=st.booleans(),
    kills=st.integers(1, 6),
    seed=st.integers(0, 10_000),
)
def test_whoever_dies_rows_that_belong_together_are_joined(
    rows: int, batch: int, sizes: tuple[int, ...], by_row: bool, kills: int, seed: int
) -> None:
    chosen = chosen_by_chance(rows // batch + 1, seed)
    scheduler = routed(batch, sizes, 2, by_row, chosen.__getitem__, 10_000)
    mortals = Mortals(rows, seed, kills, by_row=by_row)
    mortals.run(scheduler)
    assert scheduler.failure is None or scheduler.failure.damaged, "a generator's rows cannot be made again"
    if scheduler.failure is None:
        joined = [1000 + len(chosen[n // batch]) * (1000 + n) for n in range(rows)]
        assert stored_output(scheduler, mortals, "join") == joined


def test_a_choice_that_cannot_be_made_ends_the_run_also_where_nothing_else_happens() -> None:
    def choose(number: int) -> frozenset[str]:
        raise ValueError(f"not batch {number}")

    scheduler = Scheduler(
        [StepSpec("load", kind="generator"), StepSpec("a", ("load",), branches=("a",))],
        routes=[RouteSpec("load", 5, choose)],
    )
    Adding({"load": list(range(20))}).run(scheduler)
    assert scheduler.failure is not None
    assert scheduler.failure.step == "load"
    assert "batch 0 could not be routed: ValueError: not batch 0" in scheduler.failure.message
