"""Progress as plain timed lines: for logs, notebooks and everything else that is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from distill_ray.events import (
    DamageFound,
    ReplicaAway,
    ReplicaDown,
    ReplicaUp,
    RunEvent,
    RunFinished,
    RunStarted,
    RunStopping,
    RunUnguarded,
    StepAdvanced,
    StepAwaited,
    StepFailed,
    StepFinished,
)
from distill_ray.observe.standing import RunStanding
from distill_ray.observe.summary import step_line, stopping_text, summary_lines

SHORTEST_SECONDS, LONGEST_SECONDS = 5.0, 60.0
"""Between two lines of a step that goes on: short at first, longer as the run does."""


class LineProgress:
    """Writes a line when something changes, and every so often while a step goes on."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._run = RunStanding(clock)
        self._said: dict[str, float] = {}
        self._unheard = False

    def __call__(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        waited = isinstance(event, StepAwaited) and bool(self._run.steps[event.step].holder)
        self._run.listen(event)
        if isinstance(event, StepAdvanced):
            self._say_now_and_then(event.step)
            return
        if isinstance(event, StepAwaited) and waited == bool(event.holder):
            return  # how far that run is, is said now and then
        for line in self._lines(event):
            self._say(line)

    def _lines(self, event: RunEvent) -> Iterator[str]:
        if isinstance(event, RunStarted):
            if not self._run.complete_hit:
                yield f"pipeline '{event.pipeline}', cache {event.cache}, run {event.run}"
                yield from (f"{each.step}: {each.decision} ({each.reason})" for each in event.steps)
        elif isinstance(event, ReplicaUp | ReplicaDown | ReplicaAway):
            yield self._replicas_line(event)
        elif isinstance(event, StepAwaited):
            step = self._run.steps[event.step]
            yield (
                step_line(step, self._clock())
                if event.holder
                else f"{event.step}: waits for no other run any more"
            )
        elif isinstance(event, RunUnguarded | DamageFound):
            yield f"note: {event.reason}"
        elif isinstance(event, StepFinished):
            yield f"{event.step}: finished, {event.rows:,} rows"
        elif isinstance(event, StepFailed):
            yield f"{event.step}: failed: {event.message.splitlines()[0]}"
        elif isinstance(event, RunStopping):
            yield stopping_text(event)
        elif isinstance(event, RunFinished):
            yield from summary_lines(self._run)

    def _replicas_line(self, event: ReplicaUp | ReplicaDown | ReplicaAway) -> str:
        if isinstance(event, ReplicaAway):
            return f"{event.step}: replica {event.replica} is given back: it was idle, or others wait"
        if isinstance(event, ReplicaDown):
            return f"{event.step}: replica {event.replica} died ({event.reason}); others do what it had to do"
        step = self._run.steps[event.step]
        return f"{event.step}: {step.replicas} of {step.decided.replicas} replicas up"

    def _say_now_and_then(self, name: str) -> None:
        now = self._clock()
        pause = min(max(SHORTEST_SECONDS, (now - self._started) / 10), LONGEST_SECONDS)
        if now - self._said.get(name, self._started) >= pause:
            self._said[name] = now
            self._say(step_line(self._run.steps[name], now))

    def _say(self, text: str) -> None:
        stream = self._stream or sys.stderr
        if stream is None or self._unheard:
            return
        try:
            print(f"[{self._clock() - self._started:7.1f} s] {text}", file=stream, flush=True)
        except (OSError, ValueError):
            # Whoever read standard error is gone: no reason to give up a run.
            self._unheard = True
