"""What carries a plan out needs of whatever runs replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from distill_ray.engine.actions import ReadKeys, SendWork
from distill_ray.engine.keys import PartRows
from distill_ray.engine.messages import Event
from distill_ray.engine.scheduling.room import Amounts, Place
from distill_ray.engine.working.worker import WorkerSetup
from distill_ray.resources import StepResources


class Executor(Protocol):
    """Does what the scheduler says, somewhere. Events come back in any order."""

    def nodes(self, steps: Mapping[str, StepResources]) -> Mapping[str, Amounts] | None:
        """What each node has in all, where these steps are to run; None: there is no limit.

        Changes come as `NodesSeen`.

        Raises:
            ResourceError: a replica of a step can never run; names the step.
        """

    def live_bytes(self) -> int:
        """How many bytes rows may take in memory between the steps, asked once at the start."""

    def ask_for_nodes(self, places: tuple[tuple[str, Amounts], ...]) -> None:
        """There is no place for these now: whoever can bring nodes is to know."""

    def start(self, step: str, replica: int, setup: WorkerSetup, place: Place = ()) -> None:
        """Create a replica, where a place was chosen, and load it; a `ReplicaReady` follows."""

    def send(self, work: SendWork) -> None:
        """Call a replica; a `WorkDone` follows."""

    def read_keys(self, asked: ReadKeys, rows: PartRows | None) -> None:
        """Work out the digests of some columns of a block's rows; a `KeysRead` follows.

        Args:
            asked: which columns of which block.
            rows: where the rows are stored; None: they are in memory.
        """

    def flush(self, step: str, replica: int) -> None:
        """Have a replica write all it has; a `Flushed` follows."""

    def stop(self, step: str, replica: int) -> None:
        """Unload a replica and give its resources back."""

    def kill(self, step: str, replica: int) -> None:
        """End a replica in which something does not come back, without unloading it."""

    def abandon(self, step: str, replica: int) -> None:
        """End a replica that may not be up yet; its events are of no interest any more."""

    def release(self, blocks: tuple[int, ...]) -> None:
        """Forget rows in memory."""

    def submit(self, event: Event) -> None:
        """Queue an event that did not come from a replica."""

    def next_event(self) -> Event:
        """Wait for the next event."""

    def close(self, *, at_once: bool = False) -> None:
        """Give back everything, whatever state it is in.

        Args:
            at_once: let no replica take its time to unload.
        """
