"""Counts a run for Prometheus: Ray's agent on each node exports what is counted here."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable

from ray.util.metrics import Counter, Gauge, Histogram
from typing_extensions import Self

from distill_ray.events import (
    CallDone,
    Queue,
    QueuesMeasured,
    ReplicaAway,
    ReplicaDown,
    ReplicaUp,
    RunEvent,
    StepAdvanced,
    StepFinished,
)

TAGS = ("pipeline", "step")

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

TOTALS = {
    "rows_in": "rows that a step has taken",
    "rows_out": "rows that a step has given",
    "rows_reused": "rows out that were stored before",
    "rows_computed": "rows out that were made",
    "rows_failed": "input rows that a step could not do and went on without",
    "batches_computed": "batches that were made",
    "input_tokens": "tokens that models read",
    "output_tokens": "tokens that models wrote",
}
"""What of `StepAdvanced` is counted."""

COUNT_SECONDS = 1.0
"""A step's totals are counted at most this often while it goes on: Ray exports them every ten seconds."""

_log = logging.getLogger(__name__)


@functools.cache
def _counter(name: str, description: str) -> Counter:
    return Counter(f"distill_ray_{name}", description=description, tag_keys=TAGS)


@functools.cache
def _gauge(name: str, description: str) -> Gauge:
    return Gauge(f"distill_ray_{name}", description=description, tag_keys=TAGS)


@functools.cache
def _histogram(name: str, description: str) -> Histogram:
    return Histogram(f"distill_ray_{name}", description=description, boundaries=list(SECONDS), tag_keys=TAGS)


class RayMetrics:
    """Listens to the execution of a plan, inside a ``with`` block that lasts as long.

    What goes wrong in counting is said once, and then nothing more is counted: it is no reason to end a run.

    Args:
        pipeline: the pipeline's name.
        clock: this process's monotonic seconds.
    """

    def __init__(self, pipeline: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._tags: dict[str, dict[str, str]] = {}
        self._counted: dict[str, StepAdvanced] = {}
        self._counted_at: dict[str, float] = {}
        self._held: dict[str, StepAdvanced] = {}
        self._up: dict[str, int] = {}
        self._broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._try(self._end)

    def listen(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        self._try(lambda: self._take(event))

    def _try(self, count: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            count()
        except Exception as error:
            self._broken = True
            _log.warning("The run is counted for Prometheus no more: %s: %s", type(error).__name__, error)

    def _take(self, event: RunEvent) -> None:
        if isinstance(event, StepAdvanced):
            self._held[event.step] = event
            if self._clock() - self._counted_at.get(event.step, -COUNT_SECONDS) >= COUNT_SECONDS:
                self._count(event.step)
        elif isinstance(event, CallDone):
            tags = self._of(event.step)
            _histogram("call_seconds", "how long a call ran in a replica").observe(event.seconds, tags)
            _histogram("call_wait_seconds", "how long a call waited").observe(event.waited, tags)
        elif isinstance(event, QueuesMeasured):
            self._measure(event.queues)
        elif isinstance(event, ReplicaUp):
            self._set_up(event.step, self._up.get(event.step, 0) + 1)
        elif isinstance(event, ReplicaAway):
            self._set_up(event.step, self._up.get(event.step, 0) - 1)
        elif isinstance(event, ReplicaDown):
            _counter("replicas_lost", "replicas that died").inc(1, self._of(event.step))
            self._set_up(event.step, self._up.get(event.step, 0) - event.loaded)
        elif isinstance(event, StepFinished):
            self._count(event.step)
            self._set_up(event.step, 0)

    def _count(self, step: str) -> None:
        """Count what was added since the last time."""
        totals = self._held.pop(step, None)
        if totals is None:
            return
        before = self._counted.get(step, StepAdvanced(step))
        self._counted[step], self._counted_at[step] = totals, self._clock()
        for name, description in TOTALS.items():
            more = getattr(totals, name) - getattr(before, name)
            if more > 0:
                _counter(name, description).inc(more, self._of(step))

    def _measure(self, queues: tuple[Queue, ...]) -> None:
        for step in list(self._held):
            self._count(step)
        for queue in queues:
            tags = self._of(queue.step)
            _gauge("queue_rows", "rows that wait for a step").set(queue.rows, tags)
            _gauge("queue_bytes", "bytes of a step's rows in memory").set(queue.nbytes, tags)
            _gauge("calls_under_way", "calls that a step's replicas are at").set(queue.calls, tags)

    def _set_up(self, step: str, replicas: int) -> None:
        self._up[step] = replicas
        _gauge("replicas", "replicas that are up").set(replicas, self._of(step))

    def _end(self) -> None:
        for step in list(self._held):
            self._count(step)
        for step in self._up:
            self._set_up(step, 0)

    def _of(self, step: str) -> dict[str, str]:
        if step not in self._tags:
            self._tags[step] = {"pipeline": self._pipeline, "step": step}
        return self._tags[step]
