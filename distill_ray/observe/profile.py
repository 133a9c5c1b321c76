"""Draws a run's timeline as a Chrome trace, which https://ui.perfetto.dev and chrome://tracing show.

A step is a process of the trace, a replica a thread of it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from distill_ray.errors import ParameterError
from distill_ray.events import (
    CallDone,
    CallLost,
    DamageFound,
    PartWritten,
    Queue,
    QueuesMeasured,
    ReplicaAway,
    ReplicaDown,
    ReplicaStarting,
    ReplicaUp,
    RowsFailed,
    RunEvent,
    RunFinished,
    RunRepaired,
    RunStarted,
    RunStopping,
    StepAwaited,
    StepBegun,
    StepCommitting,
    StepFailed,
    StepFinished,
)
from distill_ray.observe.trace_file import TraceFile

OVERLAP_SECONDS = 0.05
"""Calls of a replica that seem to overlap by less followed each other: answers take a while to come."""

THE_RUN = "", 0
"""Where in the trace the run as a whole stands."""

THE_STEP = 0
"""The thread that stands for a step as a whole; those of its replicas have greater numbers."""

LANES = 1_000
"""Calls of a replica at the same time that get a thread each, one below the other."""

LOADING = "start and load"

WAITING = "wait for another run"

COMMITTING = "write manifest"

Profile: TypeAlias = bool | str | os.PathLike[str]


def make_profile(profile: Profile, *, silent: bool = False) -> ChromeTrace | None:
    """Make the listener that writes a trace, if one is asked for.

    Args:
        profile: the file, whose name ends with ``.json``; True: ``trace-<run>.json`` in the current folder.
        silent: do not say where it is.

    Raises:
        ParameterError: that is no name for a trace.
    """
    if profile is False:
        return None
    if profile is True:
        return ChromeTrace(None, silent=silent)
    given: Any = profile
    if not isinstance(given, str | os.PathLike) or Path(given).suffix != ".json":
        # A script, given by mistake, must not be written over.
        raise ParameterError(f"A profile is written to a file whose name ends with .json, not to '{given}'.")
    return ChromeTrace(Path(given), silent=silent)


class ChromeTrace:
    """Listens, and writes what happens as it happens.

    Args:
        path: the file; None: named by the run.
        silent: do not say at the end where it is.
        clock: this process's monotonic seconds.
    """

    def __init__(
        self, path: Path | None, *, silent: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._silent = silent
        self._clock = clock
        self._zero = clock()
        self._file: TraceFile | None = None
        self._processes: dict[str, int] = {}
        self._open: dict[tuple[str, int, str], tuple[float, dict[str, Any]]] = {}
        self._lanes: dict[tuple[str, int], list[float]] = {}

    def __call__(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        now = self._clock() - self._zero
        if isinstance(event, RunStarted):
            self._begin(event, now)
        elif self._file is None:
            return
        elif isinstance(event, CallDone):
            self._call(event, now)
        elif isinstance(event, CallLost):
            args = {"rows in": event.rows_in}
            self._replica_span(event, f"{event.purpose}: lost", (now - event.seconds, now), args)
        elif isinstance(event, QueuesMeasured):
            for queue in event.queues:
                self._counters(self._file, queue, now)
        elif isinstance(event, RunFinished):
            self._finish(event, now)
        elif isinstance(event, ReplicaStarting | ReplicaUp | ReplicaDown | ReplicaAway):
            self._of_replica(event, now)
        elif isinstance(event, RunStopping | DamageFound | RunRepaired):
            self._of_run(event, now)
        else:
            self._of_step(event, now)

    # What is drawn.

    def _of_replica(self, event: ReplicaStarting | ReplicaUp | ReplicaDown | ReplicaAway, now: float) -> None:
        thread = _first_lane(event.replica)
        if isinstance(event, ReplicaStarting):
            self._start(event.step, thread, LOADING, now)
            return
        self._end(event.step, thread, LOADING, now)
        if isinstance(event, ReplicaDown):
            self._instant(event.step, thread, f"died: {event.reason}", now)
        elif isinstance(event, ReplicaAway):
            self._instant(event.step, thread, "makes room", now)

    def _of_step(self, event: RunEvent, now: float) -> None:
        if isinstance(event, StepBegun):
            self._start(event.step, THE_STEP, "step", now)
        elif isinstance(event, StepAwaited):
            if event.holder:
                self._start(event.step, THE_STEP, WAITING, now, holder=event.holder)
            else:
                self._end(event.step, THE_STEP, WAITING, now)
        elif isinstance(event, StepCommitting):
            self._start(event.step, THE_STEP, COMMITTING, now)
        elif isinstance(event, StepFinished):
            self._end(event.step, THE_STEP, COMMITTING, now)
            self._end(event.step, THE_STEP, "step", now, rows=event.rows)
        elif isinstance(event, PartWritten):
            self._instant(event.step, THE_STEP, "part written", now, part=event.part, bytes=event.size)
        elif isinstance(event, StepFailed):
            self._instant(event.step, THE_STEP, "failed", now, message=event.message)
        elif isinstance(event, RowsFailed):
            rows = {"first row": event.first_row, "rows": event.rows}
            self._instant(event.step, THE_STEP, "rows failed", now, message=event.message, **rows)

    def _of_run(self, event: RunStopping | DamageFound | RunRepaired, now: float) -> None:
        if isinstance(event, RunStopping):
            self._instant(*THE_RUN, "asked to stop", now, signal=event.signal)
        elif isinstance(event, DamageFound):
            self._instant(*THE_RUN, "damage found", now, reason=event.reason)
        else:
            self._instant(*THE_RUN, "planned anew", now)
            self._end_all(now, but=THE_RUN)
            self._lanes.clear()

    def _call(self, event: CallDone, now: float) -> None:
        end = now - event.lag
        args = {
            "batches": event.batches,
            "rows in": event.rows_in,
            "rows out": event.rows_out,
            "waited, s": round(event.waited, 4),
        }
        if event.input_tokens or event.output_tokens:
            args |= {"tokens read": event.input_tokens, "tokens written": event.output_tokens}
        name = f"{event.purpose}: failed" if event.failed else event.purpose
        self._replica_span(event, name, (end - event.seconds, end), args)

    def _replica_span(
        self, event: CallDone | CallLost, name: str, times: tuple[float, float], args: dict[str, Any]
    ) -> None:
        """Draw what a replica was at, on a thread of it that is free."""
        start, end = times
        lanes = self._lanes.setdefault((event.step, event.replica), [])
        lane = next((n for n, until in enumerate(lanes) if until <= start + OVERLAP_SECONDS), len(lanes))
        if lane == len(lanes):
            lanes.append(start)
        start = min(max(start, lanes[lane]), end)
        lanes[lane] = end
        self._span(event.step, _first_lane(event.replica) + min(lane, LANES - 1), name, (start, end), **args)

    def _counters(self, file: TraceFile, queue: Queue, now: float) -> None:
        process = self._processes[queue.step]
        file.counter(process, "rows waiting", now, queue.rows)
        file.counter(process, "bytes in memory", now, queue.nbytes)
        file.counter(process, "calls under way", now, queue.calls)

    # The file.

    def _begin(self, event: RunStarted, now: float) -> None:
        self.path = (self.path or Path(f"trace-{event.run}.json")).absolute()
        self._file = TraceFile(self.path)
        self._processes = {name: number for number, name in enumerate(["", *(s.step for s in event.steps)])}
        self._file.process(0, f"pipeline '{event.pipeline}'")
        for step in event.steps:
            if step.runs:
                self._file.process(self._processes[step.step], step.step)
        self._start(*THE_RUN, f"run {event.run}", now, cache=event.cache)

    def _finish(self, event: RunFinished, now: float) -> None:
        self._instant(*THE_RUN, event.status, now, error=event.error)
        self._end_all(now)
        if self._file is not None and self._file.close() and not self._silent and sys.stderr is not None:
            with suppress(OSError, ValueError):  # whoever read standard error is gone
                sys.stderr.write(f"profile: {self.path}, to be opened in https://ui.perfetto.dev\n")
        self._file = None

    def _span(self, step: str, thread: int, name: str, times: tuple[float, float], **args: Any) -> None:
        if self._file is not None:
            self._file.span(self._thread(self._file, step, thread), name, times, **args)

    def _instant(self, step: str, thread: int, name: str, now: float, **args: Any) -> None:
        if self._file is not None:
            self._file.instant(self._thread(self._file, step, thread), name, now, **args)

    def _thread(self, file: TraceFile, step: str, thread: int) -> tuple[int, int]:
        process = self._processes[step]
        file.thread(process, thread, _thread_name(thread) if step else "run")
        return process, thread

    def _start(self, step: str, thread: int, name: str, now: float, **args: Any) -> None:
        self._open.setdefault((step, thread, name), (now, args))

    def _end(self, step: str, thread: int, name: str, now: float, **args: Any) -> None:
        started = self._open.pop((step, thread, name), None)
        if started is not None:
            self._span(step, thread, name, (started[0], now), **started[1], **args)

    def _end_all(self, now: float, but: tuple[str, int] | None = None) -> None:
        for step, thread, name in list(self._open):
            if (step, thread) != but:
                self._end(step, thread, name, now)


def _first_lane(replica: int) -> int:
    return 1 + replica * LANES


def _thread_name(thread: int) -> str:
    if thread == THE_STEP:
        return "step"
    replica, lane = divmod(thread - 1, LANES)
    return f"replica {replica}, call {lane + 1}" if lane else f"replica {replica}"
