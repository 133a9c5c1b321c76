"""Of a step that another run computes, what is stored is taken over as it comes, and nothing is sent."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import batch_key, end_key, offset_key
from distill_ray.engine.actions import Action, CommitOutput, ReadKeys, SendWork, StartReplica
from distill_ray.engine.messages import (
    Event,
    Failure,
    KeysRead,
    StopRequested,
    UnitsFound,
    WorkDone,
    WorkRecord,
)
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import Phase, StepSpec
from tests.engine.scheduling.test_scheduler import Replicas, digest_of

BATCH = 5
HOLDER = "run r0 on host h, pid 7"


def digests_of(rows: range) -> bytes:
    return b"".join(map(digest_of, rows))


class OneRow(Replicas):
    """Replicas of steps some of whose units are rows: each row's digest is its key."""

    def do(self, action: object) -> list[Event]:
        if isinstance(action, ReadKeys):
            keys = b"".join(map(digest_of, self.rows[action.block]))
            return [KeysRead(action.step, action.block, action.columns, keys)]
        return super().do(action)

    def work(self, action: SendWork) -> WorkDone:
        done = super().work(action)
        if action.step in self.generators or action.work.batches[0].key:
            return done
        rows = len(self.rows[done.block])
        digests = b"".join(map(digest_of, self.rows[done.block]))
        record = WorkRecord(len(action.work.batches), (1,) * rows, digests, nbytes=rows, seconds=0.001)
        return WorkDone(done.step, done.replica, done.block, record)


def of_batches(rows: range, part: int) -> tuple[PartEntry, UnitIndex]:
    """A part that holds the batches of these rows; a step adds 1000 to each row."""
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return PartEntry(f"part-{1000 + part}", 1), UnitIndex(
        keys=b"".join(batch_key([digests_of(batch)]) for batch in batches),
        counts=tuple(map(len, batches)),
        digests=digests_of(range(1000 + rows.start, 1000 + rows.stop)),
        run="r0",
    )


def of_rows(rows: range, part: int) -> tuple[PartEntry, UnitIndex]:
    """The same, row by row."""
    return PartEntry(f"part-{1000 + part}", 1), UnitIndex(
        keys=digests_of(rows),
        wholes=digests_of(rows),
        counts=(1,) * len(rows),
        digests=digests_of(range(1000 + rows.start, 1000 + rows.stop)),
        run="r0",
        shapes=((("n",), None),),
        row_shapes=((0, len(rows)),),
    )


def go_on(scheduler: Scheduler, replicas: Replicas, dice: random.Random) -> list[Action]:
    """Do all there is to do; return what was done."""
    done: list[Action] = []
    waiting: list[Event] = []
    while True:
        for action in scheduler.actions():
            done.append(action)
            waiting += replicas.do(action)
        if not waiting:
            return done
        scheduler.handle(waiting.pop(dice.randrange(len(waiting))))


def sent(actions: list[Action], step: str) -> list[Action]:
    kinds = (StartReplica, SendWork, CommitOutput)
    return [action for action in actions if isinstance(action, kinds) and action.step == step]


@pytest.mark.parametrize("by_row", [False, True], ids=["batches", "rows"])
@given(
    rows=st.integers(0, 12).map(lambda batches: batches * BATCH),
    kept=st.integers(0, 12),
    cuts=st.lists(st.integers(0, 12), max_size=4),
    seed=st.integers(0, 1000),
)
def test_nothing_is_computed_that_the_other_run_has_stored_in_the_end(
    by_row: bool, rows: int, kept: int, cuts: list[int], seed: int
) -> None:
    """Whatever it stored when, what follows sees the same rows, and only what is missing is computed."""
    columns = ("n",) if by_row else None
    scheduler = Scheduler(
        [
            StepSpec("load", kind="generator"),
            StepSpec("one", ("load",), batch_size=BATCH, columns=columns),
            StepSpec("two", ("one",), batch_size=BATCH, columns=columns),
        ],
        awaited=["one"],
    )
    replicas, dice = OneRow({"load": list(range(rows))}), random.Random(seed)
    stored = min(rows, kept * BATCH)
    edges = sorted({0, stored, *(cut * BATCH for cut in cuts if cut * BATCH < stored)})
    pieces = [range(start, end) for start, end in pairwise(edges)]
    parts = [(of_rows if by_row else of_batches)(piece, number) for number, piece in enumerate(pieces)]
    for number, piece in enumerate(pieces):
        replicas.rows[1000 + number] = [1000 + row for row in piece]
    done = go_on(scheduler, replicas, dice)
    dice.shuffle(parts)
    for part in parts:
        scheduler.handle(UnitsFound("one", (part,), HOLDER))
        done += go_on(scheduler, replicas, dice)
    assert sent(done, "one") == []
    taken_over = scheduler.steps["one"].counters.rows_out
    assert taken_over == stored, "all that was stored is handed on, though that run goes on"
    scheduler.handle(UnitsFound("one"))
    go_on(scheduler, replicas, dice)
    assert scheduler.complete
    assert sorted(replicas.seen.get("one", [])) == list(range(stored, rows))
    assert sorted(replicas.seen.get("two", [])) == [1000 + row for row in range(rows)]
    assert set(replicas.committed) == {"load", "one", "two"}


def test_an_output_is_left_to_the_other_run_to_write_though_all_rows_are_there() -> None:
    scheduler = Scheduler(
        [StepSpec("load", kind="generator"), StepSpec("one", ("load",), batch_size=BATCH)], awaited=["one"]
    )
    replicas, dice = OneRow({"load": list(range(10))}), random.Random(0)
    replicas.rows[1000] = list(range(1000, 1010))
    go_on(scheduler, replicas, dice)
    scheduler.handle(UnitsFound("one", (of_batches(range(10), 0),), HOLDER))
    assert sent(go_on(scheduler, replicas, dice), "one") == []
    assert scheduler.steps["one"].phase is Phase.RUNNING
    scheduler.handle(UnitsFound("one"))
    assert [type(action) for action in sent(go_on(scheduler, replicas, dice), "one")] == [CommitOutput]


def test_a_generator_that_another_run_computes_is_followed_as_it_goes_on() -> None:
    scheduler = Scheduler([StepSpec("load", kind="generator")], awaited=["load"])
    replicas, dice = OneRow({"load": list(range(12))}), random.Random(0)
    for number, (offset, rows) in enumerate([(0, 3), (3, 4)]):
        keys = offset_key(offset)
        index = UnitIndex(keys, (rows,), digests_of(range(offset, offset + rows)), "r0")
        scheduler.handle(UnitsFound("load", ((PartEntry(f"part-{1000 + number}", 1), index),), HOLDER))
        assert sent(go_on(scheduler, replicas, dice), "load") == []
        assert scheduler.steps["load"].counters.rows_out == offset + rows
    end = UnitIndex(end_key(7), (0,), b"", "r0")
    scheduler.handle(UnitsFound("load", ((PartEntry("part-1002", 1), end),)))
    go_on(scheduler, replicas, dice)
    assert scheduler.complete
    assert not replicas.started


def test_no_replica_is_started_ahead_for_what_another_run_computes() -> None:
    scheduler = Scheduler([StepSpec("load", kind="generator"), StepSpec("one", ("load",))], awaited=["load"])
    assert list(scheduler.warm_up(["load", "one"])) == [StartReplica("one", 0)]


def test_steps_of_other_functions_go_on_meanwhile() -> None:
    scheduler = Scheduler(
        [
            StepSpec("load", kind="generator"),
            StepSpec("one", ("load",), batch_size=BATCH),
            StepSpec("two", ("load",), batch_size=BATCH),
        ],
        awaited=["one"],
    )
    replicas = OneRow({"load": list(range(20))})
    go_on(scheduler, replicas, random.Random(0))
    assert sorted(replicas.seen["two"]) == list(range(20))
    assert "one" not in replicas.seen


def test_a_run_that_waits_can_be_stopped() -> None:
    scheduler = Scheduler([StepSpec("load", kind="generator")], awaited=["load"])
    go_on(scheduler, OneRow({"load": [1]}), random.Random(0))
    assert not scheduler.finished
    scheduler.handle(StopRequested(15))
    assert scheduler.finished


def test_a_run_that_cannot_be_watched_any_more_is_an_error() -> None:
    scheduler = Scheduler([StepSpec("load", kind="generator")], awaited=["load"])
    scheduler.handle(UnitsFound("load", failure=Failure("load", "it cannot be watched")))
    assert scheduler.failure is not None
    assert scheduler.finished
