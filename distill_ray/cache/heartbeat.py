"""A run's heartbeat: one object that only this run rewrites, from which others can tell that it lives.

Nothing here compares clocks: who waits for a run looks whether its heartbeat's content changes (`watch`).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from distill_ray.cache import paths
from distill_ray.cache.process import this_process
from distill_ray.errors import StorageError
from distill_ray.storage import Storage

BEAT_SECONDS = 2.0
"""Seconds from one beat to the next: an object store takes about one write a second under one name."""

MAX_BEAT_SECONDS = 60.0
"""Who waits for a run that was killed waits for several of its beats."""

BeatSeconds = Annotated[float, Field(gt=0, le=MAX_BEAT_SECONDS)]


class Beat(BaseModel, frozen=True):
    """What a heartbeat says. Nothing of a step's parameters, and no secret, is in it.

    Attributes:
        run: the run's id.
        pipeline: the pipeline's name.
        outputs: keys of the outputs that the run reads or writes: none of them may be removed while it lives.
        functions: signatures of the functions that it applies: their parts may be read, found and written.
        beat_seconds: seconds from one beat to the next.
        beat: how many went before.
        status: ``"ended"`` in the last one of a run that ended by itself, whatever it came to.
        steps: rows that each step has given so far.
        host: the machine's name.
        pid: the process's number there.
        process: the process, so that another one on that machine can see that it is gone.
    """

    run: str
    pipeline: str = ""
    outputs: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    beat_seconds: BeatSeconds = BEAT_SECONDS
    beat: int = 0
    status: Literal["running", "ended"] = "running"
    steps: dict[str, int] = {}
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    process: str = Field(default_factory=this_process)

    def to_json(self) -> bytes:
        """Write it as JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, data: bytes) -> Beat | None:
        """Read it back; None where it is no heartbeat."""
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return None


def read_heartbeat(storage: Storage, run: str) -> bytes | None:
    """Read a run's heartbeat as it stands; None where it has none."""
    try:
        return storage.read(paths.heartbeat(run))
    except FileNotFoundError:
        return None


class Heartbeat:
    """Rewrites a run's heartbeat, on a thread of its own, until `end`.

    A write that fails is no harm to the run: the next beat tries again. Others may take a run for dead that
    could not write for four beats.

    Args:
        storage: the cache root.
        first: the first beat; those after it go on from there.

    Attributes:
        trouble: why the last write failed; empty where it went well.
    """

    def __init__(self, storage: Storage, first: Beat) -> None:
        self._storage = storage
        self._beat = first
        self._rows: dict[str, int] = dict(first.steps)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="distill-ray-heartbeat", daemon=True)
        self.trouble = ""

    def start(self) -> None:
        """Write the first beat, before the run takes any lease, and begin.

        Raises:
            StorageError: it cannot be written.
        """
        self._storage.publish(paths.heartbeat(self._beat.run), self._beat.to_json())
        self._thread.start()

    def advance(self, step: str, rows: int) -> None:
        """Take in how many rows a step has given so far: the next beat says so."""
        self._rows[step] = rows

    def end(self) -> None:
        """Write the last beat, so that nobody waits for this run any more. Call it once."""
        self._ending.set()
        self._thread.join()

    def _go_on(self) -> None:
        due = time.monotonic() + self._beat.beat_seconds
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            due = time.monotonic() + self._beat.beat_seconds
            self._write("running")
        self._write("ended")

    def _write(self, status: Literal["running", "ended"]) -> None:
        update = {"beat": self._beat.beat + 1, "status": status, "steps": dict(self._rows)}
        self._beat = self._beat.model_copy(update=update)
        try:
            self._storage.publish(paths.heartbeat(self._beat.run), self._beat.to_json())
        except StorageError as error:
            self.trouble = str(error)
        else:
            self.trouble = ""
