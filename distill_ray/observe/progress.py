"""Progress of a run as plain timed lines on standard error."""

from __future__ import annotations

import os
import sys
import time

from distill_ray.events import (
    Listener,
    ReplicaUp,
    RunEvent,
    RunFinished,
    RunStarted,
    StepAdvanced,
    StepFinished,
)

EVERY_SECONDS = 5.0


def make_progress(mode: str = "auto") -> Listener:
    """Make the listener; ``"none"``, or ``DISTILL_RAY_PROGRESS=none``, is silent."""
    if "none" in (mode, os.environ.get("DISTILL_RAY_PROGRESS")):
        return lambda _event: None
    return _PlainProgress()


class _PlainProgress:
    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown: dict[str, float] = {}

    def __call__(self, event: RunEvent) -> None:
        if isinstance(event, RunStarted):
            self._say(f"pipeline '{event.pipeline}', cache {event.cache}")
            for step in event.steps:
                self._say(f"{step.step}: {step.decision} ({step.reason})")
        elif isinstance(event, ReplicaUp):
            self._say(f"{event.step}: replica {event.replica} is up")
        elif isinstance(event, StepAdvanced):
            now = time.monotonic()
            if now - self._shown.get(event.step, self._started) >= EVERY_SECONDS:
                self._shown[event.step] = now
                self._say(f"{event.step}: {event.rows_out} rows, {event.rows_reused} of them reused")
        elif isinstance(event, StepFinished):
            self._say(f"{event.step}: finished, {event.rows} rows")
        elif isinstance(event, RunFinished):
            self._say(f"{event.status} after {event.seconds:.1f} s")

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started:7.1f} s] {text}", file=sys.stderr)  # noqa: T201
