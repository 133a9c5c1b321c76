"""Keeps a run's events as JSON lines, for the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import orjson

from distill_ray.events import RunEvent, StepAdvanced

SEGMENT = 5_000
"""Events in one file: object stores have no append."""

SAMPLE_SECONDS = 1.0
"""A step's advances are kept at most this often."""


class Recorder:
    """Listens, and writes files of JSON lines through ``write(name, data)``."""

    def __init__(self, write: Callable[[str, bytes], None]) -> None:
        self._write = write
        self._lines: list[bytes] = []
        self._segments = 0
        self._started = time.monotonic()
        self._kept: dict[str, float] = {}

    def listen(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        seconds = time.monotonic() - self._started
        if isinstance(event, StepAdvanced):
            if seconds - self._kept.get(event.step, -SAMPLE_SECONDS) < SAMPLE_SECONDS:
                return
            self._kept[event.step] = seconds
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
