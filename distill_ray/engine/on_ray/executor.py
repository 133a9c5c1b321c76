"""The executor that makes each replica a Ray actor. Rows travel from actor to actor by reference."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import ray

from distill_ray.engine.messages import Event, Flushed, ReplicaLost, ReplicaReady, SendWork, WorkDone
from distill_ray.engine.on_ray.actor import ReplicaActor
from distill_ray.engine.worker import WorkerSetup
from distill_ray.errors import ResourceError
from distill_ray.resources import StepResources

CLOSE_SECONDS = 30
"""How long a replica may take to unload before its process is ended."""


class RayExecutor:
    """Actors by (step, replica), and references to the rows they made."""

    def __init__(self) -> None:
        self._actors: dict[tuple[str, int], Any] = {}
        self._tables: dict[int, Any] = {}
        self._setups: dict[str, Any] = {}
        self._closing: dict[Any, Any] = {}
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def start(self, step: str, replica: int, setup: WorkerSetup) -> None:
        """Create a replica and load it."""
        resources = setup.step.resources
        check_placeable(step, resources)
        actor: Any = ray.remote(ReplicaActor)
        handle = actor.options(**actor_options(resources)).remote(sees_gpus=bool(resources.gpus))
        self._actors[step, replica] = handle
        if step not in self._setups:
            self._setups[step] = ray.put(setup)
        loading = handle.load.remote(self._setups[step], replica)
        self._when_done(loading, step, replica, lambda failure: ReplicaReady(step, replica, failure))

    def send(self, work: SendWork) -> None:
        """Call a replica."""
        actor = self._actors[work.step, work.replica]
        tables = [self._tables[block] for block in work.live]
        block = work.work.block
        table, record = actor.run.options(num_returns=2).remote(work.work, *tables)
        self._tables[block] = table
        self._when_done(
            record, work.step, work.replica, lambda result: WorkDone(work.step, work.replica, block, result)
        )

    def flush(self, step: str, replica: int) -> None:
        """Have a replica write all it has."""
        done = self._actors[step, replica].flush.remote()
        self._when_done(done, step, replica, lambda result: Flushed(step, replica, *result))

    def stop(self, step: str, replica: int) -> None:
        """Unload a replica and give its resources back."""
        actor = self._actors.pop((step, replica))
        closed = actor.close.remote()
        self._closing[closed] = actor
        # Ray ends an actor that nobody refers to, and gives its resources back to steps that wait for them.
        closed.future().add_done_callback(lambda _: self._closing.pop(closed, None))

    def release(self, blocks: tuple[int, ...]) -> None:
        """Forget rows in memory."""
        for block in blocks:
            self._tables.pop(block, None)

    def submit(self, event: Event) -> None:
        """Queue an event that did not come from a replica."""
        self._events.put(event)

    def next_event(self) -> Event:
        """Wait for the next event."""
        return self._events.get()

    def close(self) -> None:
        """Let replicas that were stopped unload; end the others."""
        for actor in self._actors.values():
            ray.kill(actor)
        if closing := list(self._closing):
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for actor in list(self._closing.values()):
            ray.kill(actor)
        self._actors.clear()
        self._closing.clear()
        self._tables.clear()

    def _when_done(self, ref: Any, step: str, replica: int, event: Callable[[Any], Event]) -> None:
        def report(future: Any) -> None:
            try:
                self._events.put(event(future.result()))
            except BaseException as error:
                # Whatever it is, the call is lost; the scheduler says for which rows.
                self._events.put(ReplicaLost(step, replica, f"{type(error).__name__}: {error}"))

        ref.future().add_done_callback(report)


def actor_options(resources: StepResources) -> dict[str, Any]:
    """What a replica asks of Ray. The driver replaces dead actors; Ray itself never restarts one."""
    options: dict[str, Any] = {
        # Without num_cpus Ray would want a whole CPU to place the actor.
        "num_cpus": resources.cpus or 0,
        "num_gpus": resources.gpus or 0,
        "max_restarts": 0,
        "max_task_retries": 0,
    }
    if resources.memory:
        options["memory"] = resources.memory
    if resources.resources:
        options["resources"] = dict(resources.resources)
    if resources.accelerator_type:
        options["accelerator_type"] = resources.accelerator_type
    return options


def check_placeable(step: str, resources: StepResources) -> None:
    """Refuse a replica that no node of the cluster could ever hold: Ray would wait for ever.

    Raises:
        ResourceError: names what the step asks for and what the nodes have.
    """
    wanted = {"CPU": resources.cpus or 0, "GPU": resources.gpus or 0, **(resources.resources or {})}
    wanted["memory"] = resources.memory or 0
    if resources.accelerator_type:
        wanted[f"accelerator_type:{resources.accelerator_type}"] = 0.001
    wanted = {name: amount for name, amount in wanted.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    have = "; ".join(str({name: node.get(name, 0) for name in wanted}) for node in nodes)
    raise ResourceError(
        f"Step '{step}' declares {wanted} for each replica, which no node of the cluster has ({have}). "
        "Lower `resources` of the step, or add a node that has them."
    )
