"""The executor that runs everything in this process, one call after the other: breakpoints work.

So steps that could be given several batches at once are given one after the other, too.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping

from distill_ray.cache.writer import Block
from distill_ray.engine.actions import ReadKeys, SendWork
from distill_ray.engine.keys import PartRows, read_keys
from distill_ray.engine.messages import Event, Flushed, ReplicaReady, WorkDone
from distill_ray.engine.scheduling.blocks import LIVE_BYTES
from distill_ray.engine.scheduling.room import Amounts, Place
from distill_ray.engine.working.worker import Worker, WorkerSetup
from distill_ray.errors import ProcessUnusableError, StepError
from distill_ray.resources import StepResources


class InlineExecutor:
    """Runs replicas in the caller's process and thread."""

    def __init__(self) -> None:
        self._workers: dict[tuple[str, int], Worker] = {}
        self._blocks: dict[int, Block] = {}
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def nodes(self, steps: Mapping[str, StepResources]) -> None:
        """There is no limit: replicas take turns here."""

    def live_bytes(self) -> int:
        """How many bytes rows may take in this process between the steps."""
        return LIVE_BYTES

    def ask_for_nodes(self, places: tuple[tuple[str, Amounts], ...]) -> None:
        """There is always a place."""

    def start(self, step: str, replica: int, setup: WorkerSetup, place: Place = ()) -> None:
        """Create a replica and load it."""
        del place
        worker = Worker(setup, replica)
        self._workers[step, replica] = worker
        self._events.put(ReplicaReady(step, replica, worker.load()))

    def send(self, work: SendWork) -> None:
        """Call a replica."""
        handed_over = [self._blocks[block] for block in work.live]
        try:
            block, record = self._workers[work.step, work.replica].run(work.work, handed_over)
        except ProcessUnusableError as error:  # there is no other process to go on in
            raise StepError(work.step, str(error)) from error
        if block is not None:
            self._blocks[block.id] = block
        self._events.put(WorkDone(work.step, work.replica, work.work.block, record, time.monotonic()))

    def read_keys(self, asked: ReadKeys, rows: PartRows | None) -> None:
        """Work out the digests of some columns of rows."""
        self._events.put(read_keys(asked, rows or self._blocks[asked.block]))

    def flush(self, step: str, replica: int) -> None:
        """Have a replica write all it has."""
        written, failure = self._workers[step, replica].flush()
        self._events.put(Flushed(step, replica, written, failure))

    def stop(self, step: str, replica: int) -> None:
        """Unload a replica and give its resources back."""
        self._workers.pop((step, replica)).close()

    def kill(self, step: str, replica: int) -> None:
        """End a replica in which a thread is stuck; that thread stays behind, with its copy of the step."""
        self.stop(step, replica)

    def abandon(self, step: str, replica: int) -> None:
        """End a replica; here it is up as soon as it was started."""
        self.stop(step, replica)

    def release(self, blocks: tuple[int, ...]) -> None:
        """Forget rows in memory."""
        for block in blocks:
            self._blocks.pop(block, None)

    def submit(self, event: Event) -> None:
        """Queue an event that did not come from a replica."""
        self._events.put(event)

    def next_event(self) -> Event:
        """Wait for the next event."""
        return self._events.get()

    def close(self, *, at_once: bool = False) -> None:
        """End all replicas that are left, which unload in any case, and forget all rows."""
        del at_once
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._blocks.clear()
