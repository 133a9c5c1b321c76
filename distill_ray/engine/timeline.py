"""Says what takes how long in a run, and what waits between its steps: for those who draw or count it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.engine.actions import Action, CommitOutput, ReadKeys, SendWork, StartReplica
from distill_ray.engine.messages import Event, ReplicaLost, RowsLost, WorkDone
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepState
from distill_ray.events import (
    CallDone,
    CallLost,
    Listener,
    Queue,
    QueuesMeasured,
    ReplicaStarting,
    StepBegun,
    StepCommitting,
)

MEASURE_SECONDS = 1.0
"""Between two looks at what waits: each looks at all steps."""


class SentCall(NamedTuple):
    """A call that is under way.

    Attributes:
        step: the step's name.
        replica: the replica's number.
        at: when it was sent.
        purpose: what it is for, in a word.
        rows: rows that it was given.
    """

    step: str
    replica: int
    at: float
    purpose: str
    rows: int


class Timeline:
    """Watches what a scheduler says and is told, and says what there is to draw of it.

    Args:
        scheduler: the run's.
        emit: is given the events.
        clock: this process's monotonic seconds.
    """

    def __init__(
        self, scheduler: Scheduler, emit: Listener, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scheduler = scheduler
        self._emit = emit
        self._clock = clock
        self._begun: set[str] = set()
        self._sent: dict[int, SentCall] = {}
        self._measured = {name: Queue(name) for name in scheduler.steps}
        self._measured_at = clock()

    def begins(self, action: Action) -> None:
        """Take in what is about to be done."""
        if isinstance(action, SendWork):
            work = action.work
            rows = sum(rows for batch in work.batches for _, rows in batch.runs)
            sent = SentCall(action.step, action.replica, self._clock(), work.purpose.value, rows)
            self._sent[work.block] = sent
        elif isinstance(action, StartReplica | ReadKeys | CommitOutput):
            if action.step not in self._begun:
                self._begun.add(action.step)
                self._emit(StepBegun(action.step))
            if isinstance(action, StartReplica) and not action.joins:
                self._emit(ReplicaStarting(action.step, action.replica))
            elif isinstance(action, CommitOutput):
                self._emit(StepCommitting(action.step))

    def happened(self, event: Event) -> None:
        """Take in what has happened, when the scheduler knows of it."""
        now = self._clock()
        if isinstance(event, WorkDone):
            self._done(event, now)
        elif isinstance(event, ReplicaLost):
            of = event.step, event.replica
            self._lose([block for block, sent in self._sent.items() if (sent.step, sent.replica) == of], now)
        elif isinstance(event, RowsLost) and event.call in self._sent:
            self._lose([event.call], now)
        if now - self._measured_at >= MEASURE_SECONDS:
            self._measure(now)

    def under_way(self) -> tuple[tuple[tuple[str, int], ...], float]:
        """How many calls are under way, by step, and for how many seconds the oldest one is."""
        now, calls = self._clock(), Counter(sent.step for sent in self._sent.values())
        return tuple(calls.items()), max((now - sent.at for sent in self._sent.values()), default=0.0)

    def close(self) -> None:
        """Say what is left undone, and that nothing waits any more."""
        self._lose(list(self._sent), self._clock())
        emptied = tuple(Queue(name) for name, queue in self._measured.items() if queue != Queue(name))
        self._emit(QueuesMeasured(emptied))

    def _done(self, event: WorkDone, now: float) -> None:
        sent, record = self._sent.pop(event.block, None), event.record
        if sent is None:
            return
        at = event.at or now
        self._emit(
            CallDone(
                event.step,
                event.replica,
                sent.purpose,
                record.batches,
                sent.rows,
                len(record.digests) // DIGEST_SIZE,
                record.seconds,
                max(0.0, at - sent.at - record.seconds),
                now - at,
                record.input_tokens,
                record.output_tokens,
                failed=record.failure is not None,
            )
        )

    def _lose(self, blocks: Iterable[int], now: float) -> None:
        for block in blocks:
            sent = self._sent.pop(block)
            self._emit(CallLost(sent.step, sent.replica, sent.purpose, sent.rows, now - sent.at))

    def _measure(self, now: float) -> None:
        self._measured_at = now
        queues = [self._queue(name, state) for name, state in self._scheduler.steps.items()]
        if changed := tuple(queue for queue in queues if queue != self._measured[queue.step]):
            self._measured.update((queue.step, queue) for queue in changed)
            self._emit(QueuesMeasured(changed))

    def _queue(self, name: str, state: StepState) -> Queue:
        given = state.inputs[0].total if state.inputs else 0
        rows = max(0, given - state.counters.rows_in)
        return Queue(name, rows, self._scheduler.blocks.held(name), len(state.calls))
