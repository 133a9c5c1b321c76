"""The scheduler by itself: told what happened in any order, it keeps order and loses and repeats nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import StoredRows, StoredUnits, batch_key, end_key, offset_key
from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.actions import (
    AbandonReplica,
    CommitOutput,
    FlushReplica,
    ReadDigests,
    ReleaseBlocks,
    SendWork,
    StartReplica,
    StopReplica,
)
from distill_ray.engine.messages import (
    Committed,
    DigestsRead,
    Event,
    Failure,
    Flushed,
    ReplicaLost,
    ReplicaReady,
    StopRequested,
    WorkDone,
    WorkRecord,
)
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec


def digest_of(value: int) -> bytes:
    return value.to_bytes(16, "big")


@dataclass
class Replicas:
    """Rows are numbers; a replica adds 1000 to each. Events come back in a random order."""

    generators: dict[str, list[int]]
    seed: int = 0
    growth: int = 1
    rows: dict[int, list[int]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    started: set[tuple[str, int]] = field(default_factory=set)
    released: set[int] = field(default_factory=set)
    committed: list[str] = field(default_factory=list)
    seen: dict[str, list[int]] = field(default_factory=dict)
    unwritten: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)

    def run(self, scheduler: Scheduler) -> None:
        dice = random.Random(self.seed)
        waiting: list[Event] = []
        while not scheduler.finished:
            for action in scheduler.actions():
                waiting += self.do(action)
            if scheduler.finished:
                return
            assert waiting, "nothing is under way, yet the scheduler has not finished"
            scheduler.handle(waiting.pop(dice.randrange(len(waiting))))

    def do(self, action: object) -> list[Event]:
        if isinstance(action, StartReplica):
            self.started.add((action.step, action.replica))
            return [ReplicaReady(action.step, action.replica)]
        if isinstance(action, SendWork):
            return [self.work(action)]
        if isinstance(action, FlushReplica):
            return [Flushed(action.step, action.replica, self.write(action.step, action.replica))]
        if isinstance(action, CommitOutput):
            self.committed.append(action.step)
            return [Committed(action.step)]
        if isinstance(action, ReleaseBlocks):
            assert not self.released & set(action.blocks)
            self.released |= set(action.blocks)
            return []
        if isinstance(action, ReadDigests):
            rows = self.rows[int(action.part.name.removeprefix("part-"))]
            return [DigestsRead(action.step, action.part.name, b"".join(map(digest_of, rows)))]
        assert isinstance(action, StopReplica | AbandonReplica)
        return []

    def write(self, step: str, replica: int) -> tuple[WrittenPart, ...]:
        blocks = self.unwritten.pop((step, replica), [])
        return tuple(WrittenPart(PartEntry(f"part-{b}", 1), ((b, 0),)) for b in blocks)

    def work(self, action: SendWork) -> WorkDone:
        work, step = action.work, action.step
        self.calls[step] = self.calls.get(step, 0) + 1
        self.unwritten.setdefault((step, action.replica), []).append(work.block)
        if step in self.generators:
            rows, counts, last = self.generate(step, work.offset)
        else:
            inputs = self.read(action)
            self.seen.setdefault(step, []).extend(inputs)
            rows = [1000 + row for row in inputs for _ in range(self.growth)]
            counts, last = [batch.rows * self.growth for batch in work.batches], False
        self.rows[work.block] = rows
        digests = b"".join(map(digest_of, rows))
        record = WorkRecord(len(counts), tuple(counts), digests, nbytes=len(rows), seconds=0.001, last=last)
        return WorkDone(step, action.replica, work.block, record)

    def generate(self, step: str, offset: int) -> tuple[list[int], list[int], bool]:
        start = max(self.at.get(step, 0), offset)
        rows = self.generators[step][start : start + 7]
        self.at[step] = start + len(rows)
        return rows, [len(rows)] if rows else [], self.at[step] >= len(self.generators[step])

    def read(self, action: SendWork) -> list[int]:
        live = iter(action.live)
        sources = []
        for source in action.work.sources:
            block = next(live) if source is None else int(source.name.removeprefix("part-"))
            if source is None:
                assert block not in self.released, "rows were let go while they were still to be sent"
            sources.append(self.rows[block])
        columns = [
            [row for r in ranges for row in sources[r.source][r.start : r.start + r.rows]]
            for ranges in action.work.inputs
        ]
        return [sum(each) for each in zip(*columns, strict=True)]


def output_of(scheduler: Scheduler, replicas: Replicas, step: str) -> list[int]:
    return [
        row
        for piece in scheduler.steps[step].segments
        for row in replicas.rows[piece.block][piece.start : piece.start + piece.rows]
    ]


@settings(deadline=None)
@given(
    rows=st.integers(0, 200),
    batch=st.integers(1, 30),
    replicas=st.integers(1, 4),
    at_once=st.integers(1, 5),
    growth=st.integers(0, 3),
    live_bytes=st.sampled_from([0, 50, 10_000]),
    ahead=st.sampled_from([1, 20, 100_000]),
    seed=st.integers(0, 10_000),
)
def test_output_is_in_the_order_of_the_input_whatever_comes_first(
    rows: int, batch: int, replicas: int, at_once: int, growth: int, live_bytes: int, ahead: int, seed: int
) -> None:
    specs = [
        StepSpec("load", kind="generator"),
        StepSpec("one", ("load",), batch_size=batch, replicas=replicas, batches_at_once=at_once),
        StepSpec("two", ("one",), batch_size=3),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_ray.engine.scheduling.row_flow.ROWS_AHEAD", ahead)
        scheduler = Scheduler(specs, live_bytes=live_bytes)
    actors = Replicas({"load": list(range(rows))}, seed=seed, growth=growth)
    actors.run(scheduler)
    expected = [1000 + row for row in range(rows) for _ in range(growth)]
    assert output_of(scheduler, actors, "one") == expected
    assert output_of(scheduler, actors, "two") == [1000 + row for row in expected for _ in range(growth)]
    assert sorted(actors.seen.get("one", [])) == list(range(rows)), "each row is computed once"
    assert set(actors.committed) == {"load", "one", "two"}


@given(rows=st.integers(0, 60), batch=st.integers(1, 20), seed=st.integers(0, 1000))
def test_predecessors_are_joined_row_by_row(rows: int, batch: int, seed: int) -> None:
    scheduler = Scheduler(
        [
            StepSpec("left", kind="generator"),
            StepSpec("right", kind="generator"),
            StepSpec("join", ("left", "right"), batch_size=batch, replicas=2),
        ]
    )
    left, right = list(range(rows)), [10_000 * row for row in range(rows)]
    actors = Replicas({"left": left, "right": right}, seed=seed)
    actors.run(scheduler)
    assert output_of(scheduler, actors, "join") == [1000 + a + b for a, b in zip(left, right, strict=True)]


def test_predecessors_of_different_length_are_an_error_that_names_both() -> None:
    scheduler = Scheduler(
        [
            StepSpec("left", kind="generator"),
            StepSpec("right", kind="generator"),
            StepSpec("join", ("left", "right"), batch_size=5),
        ]
    )
    Replicas({"left": list(range(20)), "right": list(range(18))}).run(scheduler)
    assert scheduler.failure is not None
    assert "'left' gave 20" in scheduler.failure.message
    assert "'right' gave 18" in scheduler.failure.message


def test_a_global_step_is_given_everything_in_one_call() -> None:
    scheduler = Scheduler(
        [StepSpec("load", kind="generator"), StepSpec("all", ("load",), kind="global", replicas=3)]
    )
    actors = Replicas({"load": list(range(100))})
    actors.run(scheduler)
    assert actors.calls["all"] == 1
    assert actors.seen["all"] == list(range(100))
    assert {replica for step, replica in actors.started if step == "all"} == {0}


def stored(units: list[tuple[bytes, list[int]]]) -> StoredUnits:
    rows = [row for _, each in units for row in each]
    index = UnitIndex(
        keys=b"".join(key for key, _ in units),
        counts=tuple(len(each) for _, each in units),
        digests=b"".join(map(digest_of, rows)),
        run="earlier",
        replaces=(),
        seconds=0.0,
        input_tokens=0,
        output_tokens=0,
    )
    return StoredUnits([(PartEntry("part-0", 1), index)])


def test_stored_units_are_taken_over_and_only_the_others_computed() -> None:
    keys = [batch_key([b"".join(map(digest_of, range(i, i + 5)))]) for i in range(0, 20, 5)]
    known = [(keys[0], [1, 2]), (keys[2], [])]
    scheduler = Scheduler(
        [StepSpec("load", kind="generator"), StepSpec("one", ("load",), batch_size=5)],
        {"one": stored(known)},
    )
    actors = Replicas({"load": list(range(20))}, rows={})
    actors.run(scheduler)
    assert sorted(actors.seen["one"]) == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]
    assert scheduler.steps["one"].counters.rows_reused == 2
    assert scheduler.steps["one"].counters.rows_out == 12


def test_where_all_is_stored_rows_that_were_left_behind_are_read_without_anything_else_happening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distill_ray.engine.scheduling.row_flow.ROWS_AHEAD", 10)
    known = [(batch_key([digest_of(row)]), [1000 + row]) for row in range(60)]
    one = StepSpec("one", ("load",), batch_size=1)
    scheduler = Scheduler([one], {"one": stored(known)})
    rows = list(range(60))
    actors = Replicas({}, rows={7: rows[:30], 8: rows[30:]})
    for number in (7, 8):
        found = b"".join(map(digest_of, actors.rows[number]))
        scheduler.feed("load", StoredRows(PartEntry(f"part-{number}", 1), 0, 30, found))
    scheduler.feed_end("load")
    actors.run(scheduler)
    assert actors.committed == ["one"]
    assert scheduler.steps["one"].counters.rows_reused == 60


def test_a_generator_goes_on_where_the_stored_rows_end() -> None:
    known = [(offset_key(0), [0, 1, 2]), (offset_key(3), [3, 4])]
    scheduler = Scheduler([StepSpec("load", kind="generator")], {"load": stored(known)})
    actors = Replicas({"load": list(range(12))})
    actors.run(scheduler)
    assert scheduler.steps["load"].counters.rows_reused == 5
    assert scheduler.steps["load"].counters.rows_computed == 7


def test_a_generator_whose_end_is_stored_starts_no_replica() -> None:
    known = [(offset_key(0), [0, 1, 2]), (end_key(3), [])]
    scheduler = Scheduler([StepSpec("load", kind="generator")], {"load": stored(known)})
    actors = Replicas({"load": []})
    actors.run(scheduler)
    assert not actors.started
    assert actors.committed == ["load"]


def test_a_failure_ends_the_run_after_what_was_finished_is_written() -> None:
    class Failing(Replicas):
        def work(self, action: SendWork) -> WorkDone:
            done = super().work(action)
            if action.step == "one" and self.calls["one"] == 3:
                failure = Failure("one", "process() raised ValueError: no", rows=(10, 15))
                return WorkDone(done.step, done.replica, done.block, WorkRecord(failure=failure))
            return done

    scheduler = Scheduler([StepSpec("load", kind="generator"), StepSpec("one", ("load",), batch_size=5)])
    actors = Failing({"load": list(range(50))})
    actors.run(scheduler)
    assert scheduler.failure is not None
    assert scheduler.failure.rows == (10, 15)
    assert actors.committed in ([], ["load"])
    assert not actors.unwritten, "what was finished reached the storage"


def test_a_replica_that_is_done_writes_what_it_has_while_others_still_work_for_a_run_that_stops() -> None:
    scheduler = Scheduler(
        [StepSpec("load", kind="generator"), StepSpec("work", ("load",), batch_size=5, replicas=2)]
    )
    actors, sent = Replicas({"load": list(range(10))}), list[SendWork]()

    def go_on() -> list[Event]:
        """Do all but the step's calls."""
        done: list[Event] = []
        for action in scheduler.actions():
            if isinstance(action, SendWork) and action.step == "work":
                sent.append(action)
            else:
                done += actors.do(action)
        return done

    waiting = go_on()
    while len(sent) < 2:
        scheduler.handle(waiting.pop(0))
        waiting += go_on()
    assert {action.replica for action in sent} == {0, 1}
    scheduler.handle(StopRequested(2))
    scheduler.handle(actors.work(sent[0]))
    flushed = [each for each in go_on() if isinstance(each, Flushed) and each.step == "work"]
    assert [each.replica for each in flushed] == [sent[0].replica]
    assert not scheduler.finished


def test_a_step_ends_without_replicas_that_never_came_up() -> None:
    class OneRoom(Replicas):
        """There is room for one replica of each step."""

        def do(self, action: object) -> list[Event]:
            events = super().do(action)
            if isinstance(action, AbandonReplica):
                self.abandoned.append((action.step, action.replica))
                return [ReplicaLost(action.step, action.replica, "it was killed")]
            return [e for e in events if not (isinstance(e, ReplicaReady) and e.replica > 0)]

        abandoned: ClassVar[list[tuple[str, int]]] = []

    scheduler = Scheduler(
        [StepSpec("load", kind="generator"), StepSpec("one", ("load",), batch_size=5, replicas=3)]
    )
    actors = OneRoom({"load": list(range(20))})
    actors.run(scheduler)
    assert scheduler.failure is None
    assert output_of(scheduler, actors, "one") == [1000 + n for n in range(20)]
    assert actors.abandoned == [("one", 1), ("one", 2)]


def test_a_stage_begins_when_the_one_before_has_ended() -> None:
    scheduler = Scheduler(
        [
            StepSpec("load", kind="generator"),
            StepSpec("one", ("load",), batch_size=5),
            StepSpec("two", ("one",), batch_size=5, stage=1),
            StepSpec("more", kind="generator", stage=2),
        ]
    )

    class Watching(Replicas):
        def do(self, action: object) -> list[Event]:
            if isinstance(action, StartReplica):
                done = set(self.committed)
                assert done >= {"load": set(), "one": set(), "two": {"load", "one"}}.get(
                    action.step, {"load", "one", "two"}
                )
            return super().do(action)

    actors = Watching({"load": list(range(20)), "more": [1]})
    assert not list(scheduler.warm_up(["two", "more"]))
    actors.run(scheduler)
    assert actors.committed[-2:] == ["two", "more"]
    assert output_of(scheduler, actors, "two") == [2000 + n for n in range(20)]
