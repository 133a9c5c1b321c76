"""Carries out a plan with any executor: tells the scheduler what happened, does what it says, commits."""

from __future__ import annotations

import _thread
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from distill_ray.cache.manifest import Manifest
from distill_ray.cache.store import CacheStore
from distill_ray.cache.units import StoredRows
from distill_ray.cache.writer import WrittenPart, part_stem, writer_tag
from distill_ray.engine.actions import (
    AbandonReplica,
    Action,
    AskForNodes,
    CommitOutput,
    FindParts,
    FlushReplica,
    KillReplica,
    ReadDigests,
    ReadKeys,
    ReleaseBlocks,
    SendWork,
    StartReplica,
    StopReplica,
)
from distill_ray.engine.executor import Executor
from distill_ray.engine.keys import PartRows
from distill_ray.engine.made_output import made_output
from distill_ray.engine.messages import (
    Committed,
    Event,
    Failure,
    Flushed,
    NodesSeen,
    ReplicaLost,
    ReplicaReady,
    StopRequested,
    UnitsFound,
    WorkDone,
)
from distill_ray.engine.run_settings import RunSettings
from distill_ray.engine.scheduled import scheduler_of
from distill_ray.engine.scheduling.row_flow import lacks_rows
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import Phase
from distill_ray.engine.single_flight import Watcher
from distill_ray.engine.stopping import end_at_once, stop_on_signals
from distill_ray.engine.stored_rows import find_parts, read_digests, read_stored_rows
from distill_ray.engine.tidying import tidying
from distill_ray.engine.timeline import Timeline
from distill_ray.engine.working.worker import WorkerSetup
from distill_ray.errors import DamagedPartError, ResourceError, RunInterruptedError, StepError
from distill_ray.events import (
    Divergent,
    Listener,
    PartWritten,
    ReplicaAway,
    ReplicaDown,
    ReplicaUp,
    RowsFailed,
    RunStopping,
    StepAdvanced,
    StepAwaited,
    StepFailed,
    StepFinished,
)
from distill_ray.plan import Plan
from distill_ray.steps.base import detached


def execute(
    plan: Plan, store: CacheStore, executor: Executor, settings: RunSettings, emit: Listener
) -> dict[str, Manifest]:
    """Run what the plan says must run.

    Returns:
        The manifest of every step that ran or was a hit, by name.

    Raises:
        StepError: a step raised; what was finished is stored.
        CorruptObjectError, DamagedPartError: stored rows that it needs are gone or damaged, and were removed:
            a new plan makes them again.
        RunInterruptedError: the run was stopped; likewise.
    """
    execution = _Execution(plan, store, executor, settings, emit)
    with stop_on_signals(execution.stop):
        try:
            execution.run()
        finally:
            execution.close()
    return execution.manifests


def _write_preimage(store: CacheStore, plan: Plan, name: str) -> None:
    function = plan.functions[name]
    store.write_preimage(plan[name].function, function.preimage, function.code)


def _end_replica(
    action: StopReplica | KillReplica, executor: Executor, scheduler: Scheduler, emit: Listener
) -> None:
    if isinstance(action, KillReplica):
        executor.kill(action.step, action.replica)
        emit(ReplicaDown(action.step, action.replica, action.reason, loaded=True))
        return
    executor.stop(action.step, action.replica)
    if scheduler.steps[action.step].phase is Phase.RUNNING:
        emit(ReplicaAway(action.step, action.replica))


class _Execution:
    """One run of one plan."""

    def __init__(
        self, plan: Plan, store: CacheStore, executor: Executor, settings: RunSettings, emit: Listener
    ) -> None:
        self._plan = plan
        self._store = store
        self._executor = executor
        self._settings = settings
        self._emit = emit
        self._running = {step.name: step for step in plan.steps if step.runs}
        self._positions = {step.name: position for position, step in enumerate(plan.steps)}
        self.manifests = {step.name: step.manifest for step in plan.steps if step.manifest is not None}
        self._going = False
        self._stopped_by = 0
        self._replaced: dict[str, list[str]] = {name: [] for name in self._running}
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="cache")
        hits = {p for name in self._running for p in plan.graph.predecessors(name)} - set(self._running)
        self._hits = {n: read_stored_rows(store, self.manifests[n], self._threads) for n in hits}
        flight = settings.flight
        self._watcher = Watcher(flight, self._running, executor.submit) if flight else None
        awaited = self._watcher.awaited if self._watcher else ()
        self._scheduler = scheduler_of(plan, self._running, settings, executor.live_bytes(), awaited)
        self._timeline = Timeline(self._scheduler, emit)

    def run(self) -> None:
        write = partial(_write_preimage, self._store, self._plan)
        list(self._threads.map(write, self._running))  # side by side: a bucket takes its time
        nodes = self._executor.nodes({name: self._plan.graph.steps[name].resources for name in self._running})
        if nodes is not None:
            self._scheduler.handle(NodesSeen(nodes))
        self._going = True
        self._do(self._scheduler.warm_up([n for n, s in self._running.items() if s.decision != "resume"]))
        if self._watcher:
            self._watcher.start()
        self._move_on()
        while not self._scheduler.finished:
            self._take(self._executor.next_event())
            self._move_on()
        self._conclude()

    def stop(self, signal: int) -> None:
        """End the run early; called from a signal handler, whatever the run is at.

        The scheduler is told at once, so that it starts nothing more; the event wakes the loop. Before
        anything was started there is nothing to wait for.
        """
        if not self._going:
            end_at_once(signal)
        self._stopped_by = signal
        request = StopRequested(signal)
        self._scheduler.handle(request)
        self._executor.submit(request)
        stopping = RunStopping(signal, *self._timeline.under_way())
        # Not here, where a listener may be interrupted; nor by the loop, which may be at a call itself.
        _thread.start_new_thread(self._emit, (stopping,))

    def _conclude(self) -> None:
        failure = self._scheduler.failure
        if failure is not None and failure.damaged and not self._stopped_by:
            raise DamagedPartError(failure.step, failure.message, rows=failure.rows)
        if failure is not None and not failure.damaged:
            self._emit(StepFailed(failure.step, failure.message, failure.rows))
            if failure.unplaced:
                raise ResourceError(f"Step '{failure.step}': {failure.message}")
            raise StepError(failure.step, failure.message, rows=failure.rows, trace=failure.trace)
        if not self._scheduler.complete:
            raise RunInterruptedError(
                "The run was stopped. What was finished is in the cache: run it again to resume.",
                signal=self._stopped_by,
            )
        with tidying("Parts that were merged into others"):
            self._delete_replaced()

    def _delete_replaced(self) -> None:
        """Remove parts whose rows stand in merged ones; what another run may be reading is left to gc."""
        keys = {name: self._running[name].output_key for name, replaced in self._replaced.items() if replaced}
        flight = self._settings.flight
        read = flight.read_by_others(keys.values()) if flight and keys else set()
        for name, key in keys.items():
            if key not in read:
                used = {part.name for part in self.manifests[name].parts}
                # A replica may have merged parts and died before the scheduler heard of it.
                gone = [part for part in self._replaced[name] if part not in used]
                self._store.delete_parts(self._running[name].function, gone)

    def _move_on(self) -> None:
        """Do what there is to do now; hits are read no further ahead than the steps that follow need."""
        self._do(self._scheduler.actions())
        while self._feed_hits():
            self._do(self._scheduler.actions())

    def _feed_hits(self) -> bool:
        """Give more rows of hits to steps that have few left; say whether there were any."""
        hungry = [name for name in self._hits if self._scheduler.wants_rows(name)]
        for name in hungry:
            while self._scheduler.wants_rows(name):
                self._feed(name, next(self._hits[name], None))
        return bool(hungry)

    def _feed(self, name: str, found: StoredRows | None) -> None:
        if found is None:
            self._scheduler.feed_end(name)
            del self._hits[name]
        else:
            self._scheduler.feed(name, found)

    def _do(self, actions: Iterator[Action]) -> None:
        for action in actions:
            self._timeline.begins(action)
            if isinstance(action, SendWork):
                self._executor.send(action)
            elif isinstance(action, ReadKeys):
                self._executor.read_keys(action, self._part_rows(action))
            elif isinstance(action, StartReplica):
                self._executor.start(action.step, action.replica, self._setup(action), action.place)
            elif isinstance(action, FlushReplica):
                self._executor.flush(action.step, action.replica)
            elif isinstance(action, StopReplica | KillReplica):
                _end_replica(action, self._executor, self._scheduler, self._emit)
            elif isinstance(action, AbandonReplica):
                self._executor.abandon(action.step, action.replica)
            elif isinstance(action, ReleaseBlocks):
                self._executor.release(action.blocks)
            else:
                self._do_now_and_then(action)

    def _do_now_and_then(self, action: AskForNodes | CommitOutput | FindParts | ReadDigests) -> None:
        if isinstance(action, AskForNodes):
            self._executor.ask_for_nodes(action.places)
        else:
            self._do_on_thread(action)

    def _do_on_thread(self, action: CommitOutput | FindParts | ReadDigests) -> None:
        """Storage may be slow, and dispatching must not wait for it."""
        if isinstance(action, CommitOutput):
            manifest = made_output(
                action.step, self._plan, self._scheduler, self.manifests, self._settings.run
            )
            self._threads.submit(self._commit, action.step, manifest)
        elif isinstance(action, ReadDigests):
            function = self._plan[action.producer].function
            self._submit_result(self._threads.submit(read_digests, self._store, function, action))
        else:
            begin = part_stem(self._settings.run, writer_tag(self._positions[action.step], action.replica))
            function = self._plan[action.step].function
            found = self._threads.submit(find_parts, self._store, function, begin, action)
            self._submit_result(found)

    def _submit_result(self, future: Future[Any]) -> None:
        future.add_done_callback(lambda done: self._executor.submit(done.result()))

    def _part_rows(self, asked: ReadKeys) -> PartRows | None:
        source = asked.source
        if source is None:
            return None
        return PartRows(self._store, self._plan[source.step].function, source.name, asked.first_row)

    def _setup(self, start: StartReplica) -> WorkerSetup:
        name = start.step
        step = self._plan.graph.steps[name]
        sources = {p: self._plan[p].function for p in (name, *self._plan.graph.predecessors(name))}
        return WorkerSetup(
            step=detached(step, name),
            function=self._plan[name].function,
            sources=sources,
            storage=self._store.storage,
            run=self._settings.run,
            position=self._positions[name],
            writer=self._settings.writer,
            joins=start.joins,
        )

    def _take(self, event: Event) -> None:
        if isinstance(event, WorkDone):
            self._note_parts(event.step, event.record.written)
        elif isinstance(event, Flushed):
            self._note_parts(event.step, event.written)
        elif isinstance(event, ReplicaLost):
            self._emit_loss(event)
        self._scheduler.handle(event)
        self._timeline.happened(event)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        """Say what has come of an event."""
        if isinstance(event, ReplicaReady) and event.failure is None:
            if not self._scheduler.steps[event.step].joins(event.replica):
                self._emit(ReplicaUp(event.step, event.replica))
        elif isinstance(event, UnitsFound) and event.failure is None:
            self._emit(StepAwaited(event.step, event.holder))
            self._emit_advance(event.step)
        elif isinstance(event, WorkDone):
            self._emit_advance(event.step)
            for failed in event.record.failed:
                self._emit(RowsFailed(event.step, failed.first_row, failed.rows, failed.message))
        elif isinstance(event, Committed) and event.failure is None:
            self._emit_advance(event.step)
            self._emit_divergence(event)
            self._emit(StepFinished(event.step, self.manifests[event.step].rows))

    def _emit_loss(self, event: ReplicaLost) -> None:
        replica = self._scheduler.steps[event.step].replicas.get(event.replica)
        if replica is not None and not replica.joins:  # else nobody needed it any more
            self._emit(ReplicaDown(event.step, event.replica, event.reason, replica.ready))

    def _note_parts(self, step: str, written: tuple[WrittenPart, ...]) -> None:
        for part in written:
            self._replaced[step] += part.replaces
            self._emit(PartWritten(step, part.entry.name, part.entry.size))

    def _emit_divergence(self, event: Committed) -> None:
        """Two runs made the same output at the same time: say so where the rows differ."""
        (kept, kept_of), made = event.kept, self._scheduler.steps[event.step].content
        if kept != made:
            key = self._running[event.step].output_key
            self._emit(Divergent(event.step, key, kept, kept_of, made))

    def _emit_advance(self, name: str) -> None:
        counters = self._scheduler.steps[name].counters
        self._emit(StepAdvanced(name, **vars(counters)))

    def _commit(self, name: str, manifest: Manifest) -> None:
        try:
            if lacks_rows(name, self._scheduler.steps):
                self._store.write_run_manifest(self._settings.run, manifest)
                kept = manifest
            else:
                replace = self._running[name].replace_manifest
                kept = self._store.write_manifest(manifest, replace=replace)
                if self._settings.flight:
                    self._settings.flight.written(manifest.output_key)
            self.manifests[name] = kept
            self._executor.submit(Committed(name, kept=(kept.content, kept.run)))
        except Exception as error:
            message = f"its manifest could not be written: {type(error).__name__}: {error}"
            self._executor.submit(Committed(name, Failure(name, message)))

    def close(self) -> None:
        """Give back everything; at once, where calls are still under way."""
        at_once = not self._scheduler.finished
        try:
            self._executor.close(at_once=at_once)
        finally:
            self._timeline.close()
            if self._watcher:
                self._watcher.stop(wait=not at_once)
            self._threads.shutdown(wait=not at_once, cancel_futures=at_once)
