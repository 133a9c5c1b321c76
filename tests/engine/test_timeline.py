"""What a run says of its calls and queues."""

from __future__ import annotations

import time

import pytest

from distill_ray.engine.messages import ReplicaLost, ReplicaReady, WorkDone, WorkRecord
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec
from distill_ray.engine.timeline import Timeline
from distill_ray.events import (
    CallDone,
    CallLost,
    Queue,
    QueuesMeasured,
    ReplicaStarting,
    RunEvent,
    StepBegun,
    StepCommitting,
    StepFinished,
)
from distill_ray.graph import Graph
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine, RunRequest, run
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from tests.observe.events_of_a_run import Clock


class Busy(Step):
    """Takes a while, and leaves one row in two out."""

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(0.01)
        yield inputs[::2]


def graph() -> Graph:
    with Pipeline(name="timed") as made:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(100)])
        load >> Busy(name="busy", input_batch_size=10)
    return made.graph


def test_every_call_is_told_with_its_rows_and_when_it_ran(engine: Engine) -> None:
    told: list[tuple[float, RunEvent]] = []
    request = RunRequest("timed", graph(), engine=engine)
    before = time.monotonic()
    run(RunRequest(**{**vars(request), "listeners": (lambda e: told.append((time.monotonic(), e)),)}))
    calls = [(at, e) for at, e in told if isinstance(e, CallDone)]
    busy = [(at, e) for at, e in calls if e.step == "busy"]
    assert {e.step for _, e in calls} == {"load", "busy"}
    assert (sum(e.rows_in for _, e in busy), sum(e.rows_out for _, e in busy)) == (100, 50)
    assert sum(e.batches for _, e in busy) == 10
    assert all(e.seconds >= 0.01 and e.waited >= 0 and e.purpose == "compute" for _, e in busy)
    # One after the other, in a replica that does one call at a time.
    ends = [at - e.lag for at, e in busy]
    starts = [end - e.seconds for end, (_, e) in zip(ends, busy, strict=True)]
    assert before < starts[0]
    slack = 0.005 if engine == "inline" else 0.2  # answers are on their way for a while
    assert all(start > end - slack for start, end in zip(starts[1:], ends, strict=False))


def test_a_step_begins_once_and_ends_with_nothing_waiting() -> None:
    told: list[RunEvent] = []
    run(RunRequest("timed", graph(), engine="inline", listeners=(told.append,)))
    kinds = [type(event) for event in told if getattr(event, "step", "") == "busy"]
    for kind in (StepBegun, ReplicaStarting, StepCommitting, StepFinished):
        assert kinds.count(kind) == 1
    assert kinds.index(StepBegun) < kinds.index(CallDone) < kinds.index(StepCommitting)
    last: dict[str, Queue] = {}
    for event in told:
        if isinstance(event, QueuesMeasured):
            last.update((queue.step, queue) for queue in event.queues)
    assert all(queue == Queue(name) for name, queue in last.items())


Generating = tuple[Scheduler, Timeline, list[RunEvent], Clock]


@pytest.fixture
def generating() -> Generating:
    """A generator with a replica that has been called, twice."""
    scheduler, told, clock = Scheduler([StepSpec("load", kind="generator")]), list[RunEvent](), Clock()
    timeline = Timeline(scheduler, told.append, clock)

    def go_on() -> None:
        for action in scheduler.actions():
            timeline.begins(action)

    go_on()
    scheduler.handle(ReplicaReady("load", 0))
    go_on()
    return scheduler, timeline, told, clock


def test_what_a_call_did_not_run_it_waited(generating: Generating) -> None:
    scheduler, timeline, told, clock = generating
    clock.wait(5)
    done = WorkDone("load", 0, 1, WorkRecord(1, (2,), b"x" * 32, seconds=3.0), at=clock.now - 1)
    scheduler.handle(done)
    timeline.happened(done)
    (call,) = [event for event in told if isinstance(event, CallDone)]
    assert (call.seconds, call.waited, call.lag, call.rows_out) == (3.0, 1.0, 1.0, 2)


def test_calls_of_a_lost_replica_are_lost_and_told_once(generating: Generating) -> None:
    scheduler, timeline, told, clock = generating
    clock.wait(5)
    lost = ReplicaLost("load", 0, "ActorDiedError")
    scheduler.handle(lost)
    timeline.happened(lost)
    timeline.close()
    assert [event for event in told if isinstance(event, CallLost)] == [
        CallLost("load", 0, "compute", 0, 5.0)
    ]


def test_queues_are_measured_once_a_second_where_they_have_changed(generating: Generating) -> None:
    scheduler, timeline, told, clock = generating
    for _ in range(20):
        clock.wait(0.25)
        timeline.happened(ReplicaReady("load", 0))
    measured = [event for event in told if isinstance(event, QueuesMeasured)]
    assert [queue.calls for event in measured for queue in event.queues] == [1]
    timeline.close()
    assert told[-1] == QueuesMeasured((Queue("load"),))
    assert scheduler.steps["load"].calls
