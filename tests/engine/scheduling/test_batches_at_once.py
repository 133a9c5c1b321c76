"""How batches are given to replicas that work on several at once: decided by the scheduler alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from distill_ray.engine.actions import ReleaseBlocks, SendWork, StartReplica
from distill_ray.engine.messages import ReplicaReady, WorkDone, WorkRecord
from distill_ray.engine.on_ray.placement import actor_options
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec
from distill_ray.errors import ParameterError
from distill_ray.resources import StepResources
from distill_ray.steps import Step, StepInput
from distill_ray.steps.base import batches_at_once_of
from distill_ray.typing import StepOutput


@dataclass
class Run:
    """A loader of rows, and a step that is told how long each of its calls took."""

    rows: int
    at_once: int
    replicas: int = 1
    calls: list[SendWork] = field(default_factory=list)

    def __post_init__(self) -> None:
        step = StepSpec("one", ("load",), batch_size=1, replicas=self.replicas, batches_at_once=self.at_once)
        self.scheduler = Scheduler([StepSpec("load", kind="generator"), step])
        (load, *_) = self.go_on()
        digests = b"".join(row.to_bytes(16, "big") for row in range(self.rows))
        self.scheduler.handle(WorkDone("load", 0, load.work.block, WorkRecord(1, (self.rows,), digests)))
        self.go_on()

    def go_on(self) -> list[SendWork]:
        sent: list[SendWork] = []
        while actions := [each for each in self.scheduler.actions() if not isinstance(each, ReleaseBlocks)]:
            for action in actions:
                if isinstance(action, StartReplica):
                    self.scheduler.handle(ReplicaReady(action.step, action.replica))
                elif isinstance(action, SendWork):
                    sent.append(action)
        self.calls += [each for each in sent if each.step == "one"]
        return sent

    def end(self, call: SendWork, seconds: float) -> None:
        self.calls.remove(call)
        counts = tuple(batch.rows for batch in call.work.batches)
        record = WorkRecord(len(counts), counts, bytes(16 * sum(counts)), seconds=seconds)
        self.scheduler.handle(WorkDone("one", call.replica, call.work.block, record))
        self.go_on()

    @property
    def batches(self) -> list[int]:
        return [len(call.work.batches) for call in self.calls]


def test_a_replica_has_as_many_calls_as_it_works_on_and_the_next_one_when_one_ends() -> None:
    run = Run(rows=100, at_once=4)
    assert run.batches == [1] * 4
    for _ in range(10):
        run.end(run.calls[-1], seconds=30)
        assert run.batches == [1] * 4, "the first one is still at work"


def test_where_calls_are_short_one_waits_in_the_replica_and_they_are_of_several_batches() -> None:
    run = Run(rows=20_000, at_once=4)
    for _ in range(20):
        run.end(run.calls[0], seconds=0.001)
    assert len(run.calls) == 5
    assert min(run.batches) > 4


def test_few_batches_are_shared_out_over_all_that_may_work_at_once() -> None:
    run = Run(rows=40, at_once=4)
    while len(run.calls) >= 4:
        assert max(run.batches) <= 40 / 4
        run.end(run.calls[0], seconds=0.0001)


def test_replicas_are_given_as_many_as_their_neighbours() -> None:
    run = Run(rows=100, at_once=3, replicas=4)
    assert Counter(call.replica for call in run.calls) == {0: 3, 1: 3, 2: 3, 3: 3}


def test_an_actor_has_threads_only_where_it_works_on_several_calls_at_once() -> None:
    assert "max_concurrency" not in actor_options(StepResources())
    assert actor_options(StepResources(), 8)["max_concurrency"] == 8


class Several(Step):
    says: object = 3

    @property
    def batches_at_once(self) -> int:
        return self.says  # type: ignore[return-value]

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


def test_a_step_says_itself_how_many_and_must_say_a_number() -> None:
    assert batches_at_once_of(Several(name="s")) == 3
    for wrong in (0, None, "4"):
        with pytest.raises(ParameterError, match=r"Step 's': `batches_at_once` must be a number, at least 1"):
            batches_at_once_of(Several(name="s", says=wrong))
