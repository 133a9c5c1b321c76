"""Replicas die at any moment, alone or with what their node held in memory: each row is right, and stored."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from math import ceil, log2
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.actions import (
    AbandonReplica,
    CommitOutput,
    FindParts,
    FlushReplica,
    KillReplica,
    ReleaseBlocks,
    SendWork,
    StartReplica,
    StopReplica,
)
from distill_ray.engine.messages import (
    Committed,
    Event,
    Flushed,
    PartsFound,
    Purpose,
    ReplicaLost,
    ReplicaReady,
    RowsLost,
    WorkDone,
    WorkRecord,
)
from distill_ray.engine.scheduling.batches import MAX_DEATHS, MAX_LOSSES
from distill_ray.engine.scheduling.poison import MAX_GIVEN_UP
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec

Name = tuple[str, int]


@dataclass
class Writer:
    """What a replica has made and not written, and written and not reported."""

    unwritten: list[tuple[int, list[int]]] = field(default_factory=list)
    unreported: list[WrittenPart] = field(default_factory=list)


@dataclass
class Mortals:
    """Rows are numbers; a replica adds 1000 to each. Some die, some with all rows of theirs in memory.

    Attributes:
        rows: how many the generator gives.
        seed: of all that is by chance.
        kills: how many replicas die.
        noise: what is added to each row of a block at random: steps that never give the same twice.
        deadly: rows of the row-wise step ``rows`` at which each process dies, or hangs.
        by_row: all steps are row-wise.
    """

    rows: int
    seed: int
    kills: int
    noise: bool = False
    deadly: frozenset[int] = frozenset()
    on_error: str = "raise"
    by_row: bool = False
    deaths: int = 0
    stuck: set[Name] = field(default_factory=set)
    alive: dict[Name, Writer] = field(default_factory=dict)
    memory: dict[int, tuple[Name, list[int]]] = field(default_factory=dict)
    parts: dict[str, list[int]] = field(default_factory=dict)
    by: dict[Name, list[PartEntry]] = field(default_factory=dict)
    at: dict[Name, int] = field(default_factory=dict)
    waiting: list[tuple[Name | None, Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def run(self, scheduler: Scheduler) -> None:
        for _ in range(50_000):
            if scheduler.finished:
                return
            for action in scheduler.actions():
                self.do(action)
            if scheduler.finished:
                return
            if self.kills and self.alive and self.dice.random() < 0.15:
                self.kill(scheduler)
            assert self.waiting, "nothing is under way, yet the scheduler has not finished"
            scheduler.handle(self.next_event())
        raise AssertionError("the scheduler comes to no end")

    def next_event(self) -> Event:
        """Any; but who dies at a row has said before what it had done."""
        _, event = self.waiting.pop(self.dice.randrange(len(self.waiting)))
        if isinstance(event, ReplicaLost) and event.reason == "died at a row":
            said = [n for n, (of, _) in enumerate(self.waiting) if of == (event.step, event.replica)]
            if said:
                self.waiting.append((None, event))
                _, event = self.waiting.pop(said[0])
        return event

    def kill(self, scheduler: Scheduler) -> None:
        step, replica = victim = self.dice.choice(sorted(self.alive))
        state = scheduler.steps[step]
        under_way = [batch for _, batches in state.calls.values() for batch in batches]
        charged = max((batch.deaths for batch in (*under_way, *state.pending)), default=0)
        if max(charged, state.deaths) >= MAX_DEATHS - 1 or any(of is None for of, _ in self.waiting):
            return  # too many deaths at the same rows would end the run
        self.kills -= 1
        del self.alive[victim]
        # Some of its answers are on their way already; the others are never heard of.
        self.waiting = [(of, e) for of, e in self.waiting if of != victim or self.dice.random() < 0.3]
        with_node = self.dice.random() < 0.5
        if with_node:
            self.memory = {block: made for block, made in self.memory.items() if made[0] != victim}
        self.waiting.append((None, ReplicaLost(step, replica, "killed", with_node=with_node)))

    def say(self, of: Name, event: Event) -> None:
        self.waiting.append((of, event))

    def do(self, action: object) -> None:
        if isinstance(action, StartReplica):
            name = action.step, action.replica
            self.alive[name] = Writer()
            self.say(name, ReplicaReady(*name))
        elif isinstance(action, SendWork | FlushReplica):
            name = action.step, action.replica
            if name not in self.alive:
                return  # nobody hears it
            if isinstance(action, SendWork):
                self.say_what_comes_of(name, action)
            else:
                self.write(name)
                self.say(name, Flushed(*name, self.reported(name)))
        elif isinstance(action, FindParts):
            found = tuple((part, self.index(part)) for part in self.by.get((action.step, action.replica), []))
            self.waiting.append((None, PartsFound(action.step, action.replica, found)))
        elif isinstance(action, CommitOutput):
            self.waiting.append((None, Committed(action.step)))
        elif isinstance(action, ReleaseBlocks):
            for block in action.blocks:
                self.memory.pop(block, None)
        else:
            assert isinstance(action, StopReplica | AbandonReplica | KillReplica)
            self.alive.pop((action.step, action.replica), None)

    def say_what_comes_of(self, name: Name, action: SendWork) -> None:
        event = self.work(name, action)
        if isinstance(event, ReplicaLost):
            del self.alive[name]
            self.waiting.append((None, event))
        else:
            self.say(name, event)

    def survives(self, name: Name, action: SendWork) -> int | None:
        """How many batches of a call are done until one kills; None: all."""
        if name in self.stuck:
            return 0
        if name[0] != "rows" or not action.work.purpose.needs_step:
            return None
        rows, start = [row - 1000 for row in self.read(action)], 0
        for number, batch in enumerate(action.work.batches):
            if self.deadly.intersection(rows[start : start + batch.rows]):
                return number
            start += batch.rows
        return None

    def work(self, name: Name, action: SendWork) -> Event:
        work, writer = action.work, self.alive[name]
        gone = tuple(block for block in action.live if block not in self.memory)
        if gone:
            return RowsLost(action.step, gone, action.replica, work.block)
        counts: list[int] = []
        last, done, record = False, len(work.batches), WorkRecord()
        if (survived := self.survives(name, action)) is not None:
            done, hangs = survived, name in self.stuck or self.dice.random() < 0.5
            self.deaths += name not in self.stuck
            if not hangs:
                return ReplicaLost(*name, "died at a row")
            record = WorkRecord(stuck="hung at a row", overdue=name not in self.stuck)
            self.stuck.add(name)
        if work.purpose is Purpose.KEEP:
            made = None
            writer.unwritten.append((work.block, self.memory[work.block][1]))
        elif not work.batches:
            start = self.at.setdefault(name, work.offset)
            made = list(range(start, min(start + 7, self.rows)))
            self.at[name] = start + len(made)
            counts, last = [len(made)] if made else [], self.at[name] >= self.rows
        else:
            made = [1000 + row + self.noise * self.dice.randrange(1, 9) * 10_000 for row in self.read(action)]
            counts = [batch.rows for batch in work.batches[:done]]
            made = made[: sum(counts)]
            if name[0] == "rows" or self.by_row:
                counts = [1] * len(made)
            if work.purpose is Purpose.GIVE_UP:
                made = [row + 500_000 for row in made] if self.on_error == "null" else []
                counts = [len(made)]
        if made is not None:
            self.memory[work.block] = name, made
            if counts:
                writer.unwritten.append((work.block, made))
        if self.dice.random() < 0.4:
            self.write(name)
        digests = b"".join(map(digest_of, made or []))
        record = replace(
            record,
            batches=done if work.batches else len(counts),
            counts=tuple(counts),
            digests=digests,
            nbytes=len(digests),
            seconds=0.001,
            last=last,
            written=self.reported(name),
        )
        return WorkDone(*name, work.block, record)

    def read(self, action: SendWork) -> list[int]:
        live = iter(action.live)
        sources = [
            self.memory[next(live)][1] if source is None else self.parts[source.name]
            for source in action.work.sources
        ]
        columns = [
            [row for r in ranges for row in sources[r.source][r.start : r.start + r.rows]]
            for ranges in action.work.inputs
        ]
        return [sum(each) for each in zip(*columns, strict=True)]

    def write(self, name: Name) -> None:
        writer = self.alive[name]
        if not writer.unwritten:
            return
        entry = PartEntry(f"{name[0]}-{name[1]}-{len(self.parts):05d}", 1)
        rows: list[int] = []
        places = []
        for block, made in writer.unwritten:
            places.append((block, len(rows)))
            rows += made
        self.parts[entry.name] = rows
        self.by.setdefault(name, []).append(entry)
        writer.unreported.append(WrittenPart(entry, tuple(places)))
        writer.unwritten = []

    def reported(self, name: Name) -> tuple[WrittenPart, ...]:
        writer = self.alive[name]
        said, writer.unreported = tuple(writer.unreported), []
        return said

    def index(self, part: PartEntry) -> UnitIndex:
        digests = b"".join(map(digest_of, self.parts[part.name]))
        return UnitIndex(b"", (len(digests) // DIGEST_SIZE,), digests, "run")


def digest_of(value: int) -> bytes:
    return value.to_bytes(16, "big")


def stored_output(scheduler: Scheduler, mortals: Mortals, step: str) -> list[int]:
    """What a step's manifest would say: its rows as they stand in parts."""
    rows: list[int] = []
    for piece in scheduler.steps[step].segments:
        place = scheduler.blocks.stored_at(piece.block)
        assert place is not None, "rows are in the output that are in no part"
        part, first = place
        rows += mortals.parts[part.name][first + piece.start : first + piece.start + piece.rows]
    return rows


@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(0, 150),
    batch=st.integers(1, 20),
    replicas=st.integers(1, 3),
    at_once=st.integers(1, 4),
    kills=st.integers(0, 6),
    live_bytes=st.sampled_from([0, 500, 100_000]),
    seed=st.integers(0, 100_000),
)
@example(9, 14, 1, 1, 3, 500, 19)  # the last event brings the failure
def test_whoever_dies_each_row_is_stored_once_and_in_order(
    rows: int, batch: int, replicas: int, at_once: int, kills: int, live_bytes: int, seed: int
) -> None:
    scheduler = Scheduler(
        [
            StepSpec("load", kind="generator"),
            StepSpec("one", ("load",), batch_size=batch, replicas=replicas, batches_at_once=at_once),
            StepSpec("two", ("one",), batch_size=3, replicas=2),
            StepSpec("all", ("two",), kind="global"),
        ],
        live_bytes=live_bytes,
    )
    mortals = Mortals(rows, seed, kills)
    mortals.run(scheduler)
    if scheduler.failure is not None:
        # Only rows of a generator cannot be made again by themselves: the run is planned anew.
        assert scheduler.failure.damaged, scheduler.failure
        assert scheduler.failure.step == "load"
        return
    for number, step in enumerate(("load", "one", "two", "all")):
        assert stored_output(scheduler, mortals, step) == [1000 * number + row for row in range(rows)]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 100_000), kills=st.integers(0, 4), replicas=st.integers(1, 3))
def test_rows_that_come_out_differently_are_never_joined_with_what_was_made_of_the_first_ones(
    seed: int, kills: int, replicas: int
) -> None:
    scheduler = Scheduler(
        [
            StepSpec("load", kind="generator"),
            StepSpec("asks", ("load",), batch_size=5, replicas=replicas),
            StepSpec("copies", ("asks",), batch_size=3),
        ]
    )
    mortals = Mortals(80, seed, kills, noise=True)
    mortals.run(scheduler)
    if scheduler.failure is not None:
        assert scheduler.failure.damaged, "the run is planned anew, it does not end"
        return
    asked = stored_output(scheduler, mortals, "asks")
    copied = stored_output(scheduler, mortals, "copies")
    assert [row % 10_000 for row in asked] == [1000 + row for row in range(80)]
    assert [(b - a - 1000) % 10_000 for a, b in zip(asked, copied, strict=True)] == [0] * 80


ROW_STEPS = "load", "before", "rows", "after"


def with_rows_that_kill(
    on_error: Literal["raise", "skip", "null"], batch: int, replicas: int, at_once: int = 1
) -> Scheduler:
    rows = StepSpec(
        "rows",
        ("before",),
        batch_size=batch,
        replicas=replicas,
        columns=("n",),
        on_error=on_error,
        batches_at_once=at_once,
    )
    return Scheduler(
        [
            StepSpec("load", kind="generator"),
            StepSpec("before", ("load",), batch_size=7),
            rows,
            StepSpec("after", ("rows",), batch_size=3),
        ]
    )


@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(0, 120),
    batch=st.integers(1, 40),
    replicas=st.integers(1, 3),
    at_once=st.integers(1, 3),
    kills=st.integers(0, 3),
    deadly=st.frozensets(st.integers(0, 119), max_size=MAX_GIVEN_UP - 1),
    on_error=st.sampled_from(["raise", "skip", "null"]),
    seed=st.integers(0, 100_000),
)
def test_each_row_that_kills_is_found_and_no_other_is_given_up_for_it(
    rows: int,
    batch: int,
    replicas: int,
    at_once: int,
    kills: int,
    deadly: frozenset[int],
    on_error: Literal["raise", "skip", "null"],
    seed: int,
) -> None:
    scheduler = with_rows_that_kill(on_error, batch, replicas, at_once)
    deadly = frozenset(row for row in deadly if row < rows)
    mortals = Mortals(rows, seed, kills, deadly=deadly, on_error=on_error)
    mortals.run(scheduler)
    assert mortals.deaths <= len(deadly) * (MAX_DEATHS + ceil(log2(batch)) + 2)
    if scheduler.failure is not None and scheduler.failure.damaged:
        return
    if on_error == "raise" and deadly:
        assert scheduler.failure is not None
        assert scheduler.failure.rows in [(row, row + 1) for row in deadly]
        return
    assert scheduler.failure is None
    made = {row: [2000 + row] for row in range(rows)}
    for row in deadly:
        made[row] = [502_000 + row] if on_error == "null" else []
    expected = [row for number in range(rows) for row in made[number]]
    assert stored_output(scheduler, mortals, "rows") == expected
    assert stored_output(scheduler, mortals, "after") == [1000 + row for row in expected]


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 20), replicas=st.integers(1, 3), seed=st.integers(0, 100_000))
def test_where_every_row_kills_the_run_ends_and_says_so(batch: int, replicas: int, seed: int) -> None:
    scheduler = with_rows_that_kill("skip", batch, replicas)
    mortals = Mortals(100, seed, 0, deadly=frozenset(range(100)), on_error="skip")
    mortals.run(scheduler)
    assert scheduler.failure is not None
    assert "every row" in scheduler.failure.message
    assert mortals.deaths < 60


def row_by_row(on_error: Literal["raise", "skip", "null"], rows: int, batch: int) -> Scheduler:
    """A row-wise step whose rows are there, and whose first call is made."""
    spec = StepSpec("rows", ("load",), batch_size=batch, columns=("n",), on_error=on_error)
    scheduler = Scheduler([StepSpec("load", kind="generator"), spec])
    load, *_ = ready(scheduler)
    scheduler.handle(WorkDone("load", 0, load.work.block, replace(made(*range(rows)), last=True)))
    return scheduler


def calls_of_rows(scheduler: Scheduler) -> list[SendWork]:
    return calls_of(scheduler, "rows")


def test_where_memory_is_full_batches_are_halved_and_no_row_is_left_out() -> None:
    scheduler = row_by_row("skip", 4, 4)
    sizes = []
    while scheduler.failure is None:
        (call,) = calls_of_rows(scheduler)
        sizes += [batch.rows for batch in call.work.batches]
        lost = ReplicaLost("rows", call.replica, "was ended by Ray since memory was full", out_of_memory=True)
        scheduler.handle(lost)
    assert sizes == [4, 4, 4, 2, 1, 1]
    assert scheduler.failure.rows == (0, 1)
    assert "6 processes were lost at this row: each of them was ended by Ray" in scheduler.failure.message
    assert "StepResources(memory=...)" in scheduler.failure.message


def test_nodes_that_go_halve_no_batch() -> None:
    scheduler = row_by_row("skip", 4, 4)
    for _ in range(MAX_LOSSES):
        (call,) = calls_of_rows(scheduler)
        assert [batch.rows for batch in call.work.batches] == [4]
        scheduler.handle(ReplicaLost("rows", call.replica, "was lost with its node", with_node=True))
    assert scheduler.failure is not None
    assert (
        "20 replicas that were to compute these rows were lost with their nodes" in scheduler.failure.message
    )


def test_a_replica_in_which_something_hangs_writes_what_it_has_and_is_killed_once_its_other_calls_end() -> (
    None
):
    spec = StepSpec("one", ("load",), batch_size=2, batches_at_once=2)
    scheduler = Scheduler([StepSpec("load", kind="generator"), spec])
    load, *_ = ready(scheduler)
    scheduler.handle(WorkDone("load", 0, load.work.block, replace(made(*range(4)), last=True)))
    hangs, ends = (each for each in ready(scheduler) if each.step == "one")
    stuck = WorkRecord(stuck="took longer than batch_timeout=5 s", overdue=True)
    scheduler.handle(WorkDone("one", 0, hangs.work.block, stuck))
    assert not [action for action in scheduler.actions() if not isinstance(action, ReleaseBlocks)]
    scheduler.handle(WorkDone("one", 0, ends.work.block, made(1002, 1003)))
    assert FlushReplica("one", 0) in list(scheduler.actions())
    part = WrittenPart(PartEntry("part", 1), ((ends.work.block, 0),))
    scheduler.handle(Flushed("one", 0, (part,)))
    kill, start = (action for action in scheduler.actions() if isinstance(action, KillReplica | StartReplica))
    assert kill == KillReplica("one", 0, "took longer than batch_timeout=5 s")
    assert start == StartReplica("one", 1)
    scheduler.handle(ReplicaReady("one", 1))
    (again,) = ready(scheduler)
    assert first_rows(again) == first_rows(hangs)


def started(*specs: StepSpec) -> Scheduler:
    scheduler = Scheduler(specs)
    ready(scheduler)
    return scheduler


def ready(scheduler: Scheduler) -> list[SendWork]:
    """Let all replicas that are started load; return the calls that are made then."""
    sent: list[SendWork] = []
    while starting := [action for action in scheduler.actions() if not isinstance(action, ReleaseBlocks)]:
        for action in starting:
            if isinstance(action, StartReplica):
                scheduler.handle(ReplicaReady(action.step, action.replica))
            elif isinstance(action, SendWork):
                sent.append(action)
    return sent


def test_what_a_lost_replica_had_still_on_its_way_is_passed_over() -> None:
    scheduler = Scheduler([StepSpec("load", kind="generator")])
    first, *_ = ready(scheduler)
    scheduler.handle(ReplicaLost("load", 0, "ActorDiedError"))
    scheduler.handle(WorkDone("load", 0, first.work.block, WorkRecord(1, (1,), digest_of(1))))
    scheduler.handle(Flushed("load", 0))
    assert scheduler.failure is None
    assert scheduler.steps["load"].counters.rows_out == 0
    again, *_ = ready(scheduler)
    assert (again.replica, again.work.offset) == (1, 0)


def test_rows_at_which_replicas_keep_dying_end_the_run_and_are_named() -> None:
    scheduler = Scheduler([StepSpec("load", kind="generator"), StepSpec("one", ("load",), batch_size=2)])
    load, *_ = ready(scheduler)
    rows = b"".join(map(digest_of, range(4)))
    scheduler.handle(WorkDone("load", 0, load.work.block, WorkRecord(1, (4,), rows, last=True)))
    calls = [each for each in ready(scheduler) if each.step == "one"]
    for death in range(MAX_DEATHS):
        assert scheduler.failure is None
        assert [batch.rows for batch in calls[0].work.batches] == [2], "by itself, once one died at it"
        scheduler.handle(ReplicaLost("one", calls[0].replica, "exited with code 3"))
        calls = [each for each in ready(scheduler) if each.step == "one"]
        assert calls or death == MAX_DEATHS - 1
    assert scheduler.failure is not None
    assert scheduler.failure.rows == (0, 2)
    assert "3 processes were lost at these rows: each of them exited with code 3" in scheduler.failure.message


def test_whichever_of_the_batches_at_work_killed_their_replica_is_found_by_giving_each_a_try_of_its_own() -> (
    None
):
    scheduler = Scheduler(
        [StepSpec("load", kind="generator"), StepSpec("one", ("load",), batch_size=2, batches_at_once=3)]
    )
    load, *_ = ready(scheduler)
    scheduler.handle(WorkDone("load", 0, load.work.block, replace(made(*range(10)), last=True)))
    for _ in range(MAX_DEATHS - 1):
        calls = [each for each in ready(scheduler) if each.step == "one"]
        assert [first_rows(each) for each in calls] == [[0], [2], [4]]
        scheduler.handle(ReplicaLost("one", calls[0].replica, "ActorDiedError"))
    for row in (0, 2):
        (call,) = (each for each in ready(scheduler) if each.step == "one")
        assert first_rows(call) == [row], "with nothing beside it"
        scheduler.handle(WorkDone("one", call.replica, call.work.block, made(1000 + row, 1001 + row)))
    (call,) = (each for each in ready(scheduler) if each.step == "one")
    scheduler.handle(ReplicaLost("one", call.replica, "ActorDiedError"))
    assert scheduler.failure is not None
    assert scheduler.failure.rows == (4, 6)


def test_a_lost_replicas_rows_are_found_in_its_part_whatever_order_its_calls_ended_in() -> None:
    scheduler = Scheduler(
        [StepSpec("load", kind="generator"), StepSpec("one", ("load",), batch_size=2, batches_at_once=3)]
    )
    load, *_ = ready(scheduler)
    scheduler.handle(WorkDone("load", 0, load.work.block, made(*range(6))))
    first, second, third = (each for each in ready(scheduler) if each.step == "one")
    scheduler.handle(WorkDone("one", 0, first.work.block, made(1000, 1001)))
    scheduler.handle(WorkDone("one", 0, third.work.block, made(1004, 1005)))
    scheduler.handle(ReplicaLost("one", 0, "ActorDiedError"))
    assert FindParts("one", 0) in list(scheduler.actions())
    rows = [1004, 1005, 1002, 1003, 1000, 1001]  # the second had written its rows, and did not come to say so
    index = UnitIndex(b"", (6,), b"".join(map(digest_of, rows)), "run")
    part = PartEntry("part", 1)
    scheduler.handle(PartsFound("one", 0, ((part, index),)))
    assert scheduler.blocks.stored_at(first.work.block) == (part, 4)
    assert scheduler.blocks.stored_at(third.work.block) == (part, 0)
    assert not scheduler.steps["one"].orphans
    scheduler.handle(ReplicaReady("one", 1))
    (again,) = ready(scheduler)
    assert first_rows(again) == first_rows(second)


def test_what_a_replica_that_hangs_had_made_again_of_lost_rows_is_not_taken_for_all_of_them() -> None:
    scheduler = Scheduler([StepSpec("load", kind="generator"), StepSpec("one", ("load",), batch_size=2)])
    load, *_ = ready(scheduler)
    scheduler.handle(WorkDone("load", 0, load.work.block, replace(made(*range(6)), last=True)))
    (first,) = calls_of(scheduler, "one")
    scheduler.handle(WorkDone("one", 0, first.work.block, replace(made(1000, 1001), seconds=0.001)))
    (second,) = calls_of(scheduler, "one")
    block, two_batches = second.work.block, replace(made(*range(1002, 1006)), batches=2, counts=(2, 2))
    scheduler.handle(WorkDone("one", 0, block, two_batches))
    scheduler.handle(ReplicaLost("one", 0, "was lost with its node", with_node=True))
    list(scheduler.actions())
    scheduler.handle(PartsFound("one", 0))
    for keep in calls_of(scheduler, "one"):
        scheduler.handle(RowsLost("one", (first.work.block, block), keep.replica, keep.work.block))
    (other,) = calls_of(scheduler, "one")
    scheduler.handle(WorkDone("one", other.replica, other.work.block, made(1000, 1001)))
    (again,) = calls_of(scheduler, "one")
    assert again.work.block == block
    some = WrittenPart(PartEntry("some", 1), ((block, 0),))
    hangs = replace(made(1002, 1003), stuck="hung", overdue=True, written=(some,))
    scheduler.handle(WorkDone("one", again.replica, block, hangs))
    assert FlushReplica("one", again.replica) in list(scheduler.actions())
    scheduler.handle(Flushed("one", again.replica, (some,)))
    assert scheduler.blocks.stored_at(block) is None
    (once_more,) = calls_of(scheduler, "one")
    every = WrittenPart(PartEntry("every", 1), ((block, 0),))
    scheduler.handle(WorkDone("one", once_more.replica, block, replace(two_batches, written=(every,))))
    assert scheduler.blocks.stored_at(block) == (every.entry, 0)


def test_replicas_that_die_before_they_have_done_anything_end_the_run() -> None:
    scheduler = Scheduler([StepSpec("load", kind="generator")])
    list(scheduler.actions())
    for replica in range(MAX_DEATHS + 1):
        assert scheduler.failure is None
        scheduler.handle(ReplicaLost("load", replica, "was killed"))
        list(scheduler.actions())
    assert scheduler.failure is not None
    assert "4 processes died in a row, after 0 rows: the last one was killed." in scheduler.failure.message
    assert "What do process() and load() do there?" in scheduler.failure.message


def calls_of(scheduler: Scheduler, step: str) -> list[SendWork]:
    return [each for each in ready(scheduler) if each.step == step]


def first_rows(call: SendWork) -> list[int]:
    return [batch.runs[0][0] for batch in call.work.batches]


def made(*rows: int) -> WorkRecord:
    return WorkRecord(1, (len(rows),), b"".join(map(digest_of, rows)), seconds=2)


def stopped(scheduler: Scheduler) -> list[StopReplica]:
    return [action for action in scheduler.actions() if isinstance(action, StopReplica)]
