"""Keeps a run's events as JSON lines, for the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import orjson

from distill_ray.events import RunEvent, RunFinished, StepAdvanced, StepFinished

SEGMENT = 5_000
"""Events in one file: object stores have no append."""

SAMPLE_SECONDS = 1.0
"""A step's advances are kept at most this often, and the last one always."""


class Recorder:
    """Listens, and writes files of JSON lines through ``write(name, data)``."""

    def __init__(
        self, write: Callable[[str, bytes], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._started = clock()
        self._lines: list[bytes] = []
        self._segments = 0
        self._kept: dict[str, float] = {}
        self._held: dict[str, tuple[float, StepAdvanced]] = {}

    def listen(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        seconds = self._clock() - self._started
        if isinstance(event, StepAdvanced):
            if seconds - self._kept.get(event.step, -SAMPLE_SECONDS) < SAMPLE_SECONDS:
                self._held[event.step] = seconds, event
                return
            self._kept[event.step] = seconds
            self._held.pop(event.step, None)
        elif isinstance(event, StepFinished):
            self._let_go([event.step])
        elif isinstance(event, RunFinished):
            self._let_go(list(self._held))
        self._keep(seconds, event)

    def _let_go(self, steps: list[str]) -> None:
        """Keep where these steps stood last, after all."""
        for step in steps:
            if step in self._held:
                self._keep(*self._held.pop(step))

    def _keep(self, seconds: float, event: RunEvent) -> None:
        record = {"at": round(seconds, 4), "event": type(event).__name__, **asdict(event)}
        self._lines.append(orjson.dumps(record))
        if len(self._lines) >= SEGMENT:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._lines:
            self._segments += 1
            self._write(f"events-{self._segments:04d}.jsonl", b"\n".join(self._lines) + b"\n")
            self._lines = []
