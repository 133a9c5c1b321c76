"""The executor that makes each replica a Ray actor. Rows travel from actor to actor by reference."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from distill_ray.engine.actions import ReadKeys, SendWork
from distill_ray.engine.keys import PartRows, read_keys
from distill_ray.engine.messages import (
    Event,
    Failure,
    Flushed,
    KeysRead,
    Purpose,
    ReplicaLost,
    ReplicaReady,
    RowsLost,
    WorkDone,
)
from distill_ray.engine.on_ray.across_nodes import Groups
from distill_ray.engine.on_ray.actor import ReplicaActor
from distill_ray.engine.on_ray.losses import known_better, loss
from distill_ray.engine.on_ray.placement import (
    actor_options,
    check_placeable,
    node_resources,
    say_if_short,
)
from distill_ray.engine.on_ray.preflight import check_nodes
from distill_ray.engine.on_ray.waiting import LOOK_SECONDS, Places, patience
from distill_ray.engine.scheduling.blocks import LIVE_BYTES
from distill_ray.engine.scheduling.room import Amounts, Place
from distill_ray.engine.working.worker import WorkerSetup
from distill_ray.errors import StepError
from distill_ray.resources import StepResources
from distill_ray.steps.base import Step
from distill_ray.storage import Storage

CLOSE_SECONDS = 30
"""How long a replica may take to unload before its process is ended."""

_log = logging.getLogger(__name__)


class RayExecutor:
    """Actors by (step, replica), and references to the rows they made."""

    def __init__(self, storage: Storage, wait_for_resources: float | None = None) -> None:
        self._storage = storage
        self._patience = patience(wait_for_resources)
        # Made once: Ray ships each by itself, and takes it apart before.
        self._actor: Any = ray.remote(ReplicaActor)
        # Without a CPU of its own: all may be taken by replicas that wait for what this finds out.
        self._reading: Any = ray.remote(num_cpus=0, max_retries=2)(read_keys)
        self._actors: dict[tuple[str, int], Any] = {}
        self._loaded: set[tuple[str, int]] = set()
        self._groups = Groups()
        self._places = Places(self._patience)
        self._blocks: dict[int, Any] = {}
        self._setups: dict[tuple[str, bool], Any] = {}
        self._closing: dict[Any, tuple[str, Any, float]] = {}
        self._time_limits: dict[str, float | None] = {}
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def nodes(self, steps: Mapping[str, StepResources]) -> Mapping[str, Amounts]:
        """What each living node has in all, where these steps are to run.

        Raises:
            ResourceError: a replica of a step can never run; names the step.
            StorageError: a node that may run a replica cannot use the cache root; names the node.
        """
        nodes = node_resources()
        if not self._patience:
            for step, resources in steps.items():
                check_placeable(step, resources, list(nodes.values()))
        for step, resources in steps.items():
            say_if_short(step, resources, nodes)
        check_nodes(self._storage, steps)
        return nodes

    def live_bytes(self) -> int:
        """Half of the cluster's object store: the rest is for calls under way, and Ray spills above 80 %."""
        store = sum(node.get("object_store_memory", 0) for node in node_resources().values())
        return int(store / 2) or LIVE_BYTES

    def ask_for_nodes(self, places: tuple[tuple[str, Amounts], ...]) -> None:
        """There is no place for these now: let an autoscaler know, and wait."""
        self._places.ask(places)

    def start(self, step: str, replica: int, setup: WorkerSetup, place: Place = ()) -> None:
        """Create a replica, where a place was chosen, and load it."""
        resources = setup.resources
        self._time_limits[step] = setup.step.batch_timeout if isinstance(setup.step, Step) else None
        options = actor_options(resources, setup.calls_at_once, place[0] if place else "")
        spread_gpus = 0
        if resources.across_nodes:
            options |= self._groups.reserve(step, replica, resources)
            spread_gpus = len(resources.bundles)
        handle = self._actor.options(**options).remote(
            f"{step}/{replica}", sees_gpus=bool(resources.gpus), spread_gpus=spread_gpus
        )
        self._actors[step, replica] = handle
        if resources.needs:
            self._places.wait(step, replica)
            handle.__ray_ready__.remote().future().add_done_callback(
                lambda future: None if future.exception() else self._places.gone(step, replica)
            )
        if (step, setup.joins) not in self._setups:
            self._setups[step, setup.joins] = ray.put(_pickled(step, setup))
        loading = handle.load.remote(step, self._setups[step, setup.joins], replica, _search_path())

        self._when_done(loading, step, replica, lambda told: ReplicaReady(step, replica, *told))

    def send(self, work: SendWork) -> None:
        """Call a replica."""
        actor = self._actors[work.step, work.replica]
        handed_over = {block: self._blocks[block] for block in work.live}
        step, replica, block = work.step, work.replica, work.work.block
        made, record = actor.run.options(num_returns=2).remote(work.work, *handed_over.values())
        if work.work.purpose is not Purpose.KEEP:
            self._blocks[block] = made

        def lost(error: Exception) -> Event:
            if gone := _lost_blocks(error, handed_over):
                return RowsLost(step, gone, replica, block)
            return ReplicaLost(step, replica, "was lost with its answer", str(error), with_node=True)

        def done(result: Any) -> Event:
            return WorkDone(step, replica, block, result, time.monotonic())

        self._when_done(record, step, replica, done, lost)

    def read_keys(self, asked: ReadKeys, rows: PartRows | None) -> None:
        """Work out the digests of some columns of rows, wherever they are."""
        found = self._reading.remote(asked, self._blocks[asked.block] if rows is None else rows)

        def report(future: Any) -> None:
            try:
                self._events.put(future.result())
            except ray.exceptions.ObjectLostError:
                self._events.put(RowsLost(asked.step, (asked.block,)))
            except Exception as error:
                message = f"its input could not be read: {type(error).__name__}: {error}"
                failure = Failure(asked.step, message)
                self._events.put(KeysRead(asked.step, asked.block, asked.columns, failure=failure))

        found.future().add_done_callback(report)

    def flush(self, step: str, replica: int) -> None:
        """Have a replica write all it has."""
        done = self._actors[step, replica].flush.remote()
        self._when_done(done, step, replica, lambda result: Flushed(step, replica, *result))

    def stop(self, step: str, replica: int) -> None:
        """Unload a replica and give its resources back."""
        actor = self._actors.pop((step, replica))
        self._loaded.discard((step, replica))
        self._places.gone(step, replica)
        closed = actor.close.remote()
        self._closing[closed] = step, actor, time.monotonic()
        # Ray ends an actor that nobody refers to, and gives its resources back to steps that wait for them.
        closed.future().add_done_callback(lambda _: self._closed(closed, step, replica))

    def _closed(self, closed: Any, step: str, replica: int) -> None:
        self._closing.pop(closed, None)
        self._groups.leave(step, replica)

    def _end_overdue(self) -> None:
        """End those that take too long to unload: others may wait for what they hold."""
        for closed, (step, actor, since) in list(self._closing.items()):
            if time.monotonic() - since >= CLOSE_SECONDS:
                self._closing.pop(closed, None)
                _log.warning("Step '%s': unload() took longer than %d s: ended", step, CLOSE_SECONDS)
                ray.kill(actor)

    def kill(self, step: str, replica: int) -> None:
        """End a replica's process as it is."""
        self._loaded.discard((step, replica))
        self._places.gone(step, replica)
        ray.kill(self._actors.pop((step, replica)))
        self._groups.remove(step, replica)

    def abandon(self, step: str, replica: int) -> None:
        """End a replica that may not be up yet; Ray may not even have found it a place."""
        if (step, replica) in self._loaded:
            self.stop(step, replica)
        else:
            self._places.gone(step, replica)
            ray.kill(self._actors.pop((step, replica)))
            self._groups.remove(step, replica)

    def release(self, blocks: tuple[int, ...]) -> None:
        """Forget rows in memory."""
        for block in blocks:
            self._blocks.pop(block, None)

    def submit(self, event: Event) -> None:
        """Queue an event that did not come from a replica."""
        self._events.put(event)

    def next_event(self) -> Event:
        """Wait for the next event."""
        while True:
            self._groups.remove_left()
            self._end_overdue()
            for seen in self._places.look():
                self._events.put(seen)
            with suppress(queue.Empty):
                event = self._events.get(timeout=LOOK_SECONDS)
                self._note(event)
                return event

    def _note(self, event: Event) -> None:
        if isinstance(event, ReplicaReady):
            self._loaded.add((event.step, event.replica))
        elif isinstance(event, ReplicaLost):
            self._loaded.discard((event.step, event.replica))
            self._places.gone(event.step, event.replica)
            actor = self._actors.pop((event.step, event.replica), None)
            if actor is not None:
                ray.kill(actor)  # it may only be out of reach: others do its work from now on
            self._groups.remove(event.step, event.replica)

    def close(self, *, at_once: bool = False) -> None:
        """Let replicas that have loaded unload, unless it is to be at once; end the others."""
        for step, replica in [] if at_once else list(self._loaded & self._actors.keys()):
            self.stop(step, replica)
        self._places.close()
        for actor in self._actors.values():
            ray.kill(actor)
        try:
            if not at_once and (closing := list(self._closing)):
                ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        finally:
            for _, actor, _ in list(self._closing.values()):
                ray.kill(actor)
            self._groups.close()
        self._actors.clear()
        self._closing.clear()
        self._blocks.clear()

    def _when_done(
        self,
        ref: Any,
        step: str,
        replica: int,
        event: Callable[[Any], Event],
        lost: Callable[[Exception], Event] | None = None,
    ) -> None:
        def report(future: Any) -> None:
            try:
                self._events.put(event(future.result()))
            except BaseException as error:
                if lost is not None and isinstance(error, ray.exceptions.ObjectLostError):
                    self._events.put(lost(error))
                    return
                # Whatever it is, the call is lost; the scheduler says for which rows.
                if isinstance(error, ray.exceptions.ActorUnavailableError):  # to ask again takes a while
                    threading.Thread(target=self._lose, args=(step, replica, error), daemon=True).start()
                else:
                    self._events.put(self._loss(step, replica, error))

        ref.future().add_done_callback(report)

    def _lose(self, step: str, replica: int, error: BaseException) -> None:
        actor = self._actors.get((step, replica))
        known = error if actor is None else known_better(error, actor)
        self._events.put(self._loss(step, replica, known))

    def _loss(self, step: str, replica: int, error: BaseException) -> ReplicaLost:
        return loss(step, replica, error, self._time_limits.get(step))


def _lost_blocks(error: Exception, handed_over: Mapping[int, Any]) -> tuple[int, ...]:
    """Which of the rows that a call was handed are gone; none: what it had to say itself is."""
    gone = getattr(getattr(error, "cause", None) or error, "object_ref_hex", None)
    return tuple(block for block, ref in handed_over.items() if ref.hex() == gone)


def _pickled(step: str, setup: WorkerSetup) -> bytes:
    try:
        pickled: bytes = ray.cloudpickle.dumps(setup)
    except Exception as error:
        raise StepError(
            step,
            f"it cannot be sent to its replicas: {type(error).__name__}: {error}. Make what cannot be "
            "pickled in load(), and keep it in a private attribute.",
        ) from error
    return pickled


def _search_path() -> list[str]:
    """The folders that the driver imports users' modules from."""
    folders = [str(Path(folder).resolve()) for folder in sys.path]
    return [folder for folder in folders if "site-packages" not in folder and Path(folder).is_dir()]
