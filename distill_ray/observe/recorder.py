"""Keeps a run's events as JSON lines, for the run's folder.

What comes often is kept in a number that grows slowly with the run, whatever its rate: a step's advances and
queues once a second or, later on, once in a thousandth of the run so far, and so are calls beyond a few.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import orjson

from distill_ray.events import (
    CallDone,
    Queue,
    QueuesMeasured,
    RunEvent,
    RunFinished,
    StepAdvanced,
    StepFinished,
)

SEGMENT = 5_000
"""Events in one file: object stores have no append."""

SAMPLE_SECONDS = 1.0
"""A step's advances are kept at most this often, and the last one always."""

POINTS = 1_000
"""Later on, they are kept so often in the time since the run began."""

SINGLE_CALLS = 20
"""Calls of all steps that are kept one by one in that time; the others are added up by step."""

FLUSH_SECONDS = 60.0
"""A file is written at least this often, and later on ten times in the time since the run began."""


@dataclass
class CallsDone:
    """Calls of a step that came too fast to be kept one by one, added up.

    Attributes:
        step: the step's name.
        since: seconds over which they came, up to this event.
        calls: how many they are.
        replicas: replicas that did them.
        longest: the longest that one ran, in seconds.
        longest_wait: the longest that one waited.
        batches, rows_in, rows_out, seconds, waited, input_tokens, output_tokens, failed: sums of what a
            `CallDone` says.
    """

    step: str
    since: float = 0.0
    calls: int = 0
    replicas: set[int] = field(default_factory=set)
    longest: float = 0.0
    longest_wait: float = 0.0
    batches: int = 0
    rows_in: int = 0
    rows_out: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    failed: int = 0

    def add(self, call: CallDone) -> None:
        """Take in one more."""
        self.calls += 1
        self.replicas.add(call.replica)
        self.longest = max(self.longest, call.seconds)
        self.longest_wait = max(self.longest_wait, call.waited)
        self.batches += call.batches
        self.rows_in += call.rows_in
        self.rows_out += call.rows_out
        self.seconds += call.seconds
        self.waited += call.waited
        self.input_tokens += call.input_tokens
        self.output_tokens += call.output_tokens
        self.failed += call.failed


class Recorder:
    """Listens, and writes files of JSON lines through ``write(name, data)``.

    A thread of its own says that the run is to stop, at any moment: events come one at a time.
    """

    def __init__(
        self, write: Callable[[str, bytes], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._started = clock()
        self._one_at_a_time = threading.Lock()
        self._lines: list[bytes] = []
        self._segments = 0
        self._flushed = 0.0
        self._window = 0.0
        self._single_calls = 0
        self._calls: dict[str, CallsDone] = {}
        self._queues: dict[str, Queue] = {}
        self._kept: dict[str, float] = {}
        self._held: dict[str, tuple[float, StepAdvanced]] = {}

    def listen(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        with self._one_at_a_time:
            self._take(event)

    def flush(self) -> None:
        """Write what has gathered."""
        with self._one_at_a_time:
            self._write_lines()

    def _take(self, event: RunEvent) -> None:
        seconds = self._clock() - self._started
        pause = max(SAMPLE_SECONDS, seconds / POINTS)
        if seconds - self._window >= pause:
            self._end_window(seconds)
        if isinstance(event, StepAdvanced):
            if seconds - self._kept.get(event.step, -pause) < pause:
                self._held[event.step] = seconds, event
                return
            self._kept[event.step] = seconds
            self._held.pop(event.step, None)
        elif isinstance(event, CallDone):
            if self._single_calls >= SINGLE_CALLS:
                self._calls.setdefault(event.step, CallsDone(event.step)).add(event)
                return
            self._single_calls += 1
        elif isinstance(event, QueuesMeasured):
            self._queues.update((queue.step, queue) for queue in event.queues)
            return
        elif isinstance(event, StepFinished):
            self._let_go([event.step])
        elif isinstance(event, RunFinished):
            self._end_window(seconds)
            self._let_go(list(self._held))
        self._keep(seconds, event)

    def _end_window(self, seconds: float) -> None:
        """Keep what has gathered since the last time."""
        for calls in self._calls.values():
            calls.since = round(seconds - self._window, 4)
            self._keep(seconds, calls)
        if self._queues:
            self._keep(seconds, QueuesMeasured(tuple(self._queues.values())))
        self._calls.clear()
        self._queues.clear()
        self._single_calls = 0
        self._window = seconds

    def _let_go(self, steps: Iterable[str]) -> None:
        """Keep where these steps stood last, after all."""
        for step in steps:
            if step in self._held:
                self._keep(*self._held.pop(step))

    def _keep(self, seconds: float, event: RunEvent | CallsDone) -> None:
        record = {"at": round(seconds, 4), "event": type(event).__name__, **asdict(event)}
        if isinstance(event, CallsDone):
            record["replicas"] = len(event.replicas)
        self._lines.append(orjson.dumps(record))
        if len(self._lines) >= SEGMENT or seconds - self._flushed >= max(FLUSH_SECONDS, seconds / 10):
            self._flushed = seconds
            self._write_lines()

    def _write_lines(self) -> None:
        if self._lines:
            self._segments += 1
            self._write(f"events-{self._segments:04d}.jsonl", b"\n".join(self._lines) + b"\n")
            self._lines = []
