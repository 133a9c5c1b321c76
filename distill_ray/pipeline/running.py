"""One run of a pipeline, in a straight line: open the cache, plan, execute, record, hand out the rows."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from distill_ray.cache import paths
from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.manifest import Manifest
from distill_ray.cache.roots import open_cache
from distill_ray.cache.store import CacheStore
from distill_ray.cache.writer import WriterSettings
from distill_ray.engine.stopping import stop_on_signals
from distill_ray.environment import seconds_in
from distill_ray.errors import (
    CorruptObjectError,
    DamagedPartError,
    ParameterError,
    RunEndedError,
    RunInterruptedError,
    StorageError,
)
from distill_ray.events import (
    DamageFound,
    Listener,
    RunEvent,
    RunFinished,
    RunRepaired,
    RunStarted,
    StepDecided,
)
from distill_ray.graph import Graph
from distill_ray.graph.expand import owner_of
from distill_ray.observe.recorder import Recorder
from distill_ray.observe.report import RunReport
from distill_ray.pipeline.guarding import Guard, OnBusy, guarded
from distill_ray.pipeline.run_records import RunRecords
from distill_ray.plan import Plan, StepPlan, make_plan, renewed
from distill_ray.storage import ReadOnlyStorage, is_shared, open_storage

if TYPE_CHECKING:
    from distill_ray.engine.executor import Executor
    from distill_ray.engine.run_settings import RunSettings

Engine: TypeAlias = Literal["ray", "inline"]
CacheScope: TypeAlias = Literal["shared", "pipeline"]
CacheDir: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

CACHE_DIR_VARIABLE = "DISTILL_RAY_CACHE_DIR"
MAX_REPAIRS = 50
"""How often a run is planned anew because stored rows were found damaged: each time they are removed."""

LISTING_SECONDS = 0.5
"""Seconds before a listing is asked for again that shows what is gone."""

FLUSH_VARIABLE = "DISTILL_RAY_FLUSH_SECONDS"


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked to do.

    Attributes:
        pipeline: the pipeline's name, if it was given one.
        graph: the checked graph, with the run's parameters.
        cache_dir: URL or path of the cache root, or of several; None takes the default.
        cache_scope: whether other pipelines share the outputs.
        cache_read_only: write nothing, and compute nothing.
        storage_options: for the roots' filesystem.
        use_cache: False computes everything anew.
        engine: ``"ray"`` or ``"inline"``.
        listeners: who else hears of the run's events.
        max_batches: batches that each generator makes; 0 is no limit.
        verify: share of the reused units that are computed again to compare.
        on_busy: what to do about steps that another run computes: ``"wait"``, ``"compute"`` or ``"fail"``.
        stages: for each step the number of its stage: see `stages_of`; empty: there are none.
        wait_for_resources: seconds to wait for a node that could hold a replica; None: see `Pipeline.run`.
    """

    pipeline: str | None
    graph: Graph
    cache_dir: CacheDir | None = None
    cache_scope: CacheScope = "shared"
    cache_read_only: bool = False
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    use_cache: bool = True
    engine: Engine = "ray"
    listeners: tuple[Listener, ...] = ()
    max_batches: int = 0
    verify: float = 0.0
    on_busy: OnBusy = "wait"
    stages: Mapping[str, int] = field(default_factory=dict)
    wait_for_resources: float | None = None


@dataclass(frozen=True)
class RunResult:
    """What a run came to: where its leaves' rows are, and its record."""

    store: CacheStore
    plan: Plan
    leaves: Mapping[str, Manifest]
    report: RunReport


def cache_roots(cache_dir: CacheDir | None) -> list[str]:
    """The roots to use: those given, else ``DISTILL_RAY_CACHE_DIR``, else ``~/.cache/distill_ray``."""
    if cache_dir is None:
        return [os.environ.get(CACHE_DIR_VARIABLE) or str(Path.home() / ".cache" / "distill_ray")]
    given: list[Any] = []
    if isinstance(cache_dir, str | os.PathLike):
        given = [cache_dir]
    elif isinstance(cache_dir, Sequence):
        given = list(cache_dir)
    if not given or not all(each and isinstance(each, str | os.PathLike) for each in given):
        raise ParameterError(f"`cache_dir` must be a path or URL, or a list of these, not {cache_dir!r}.")
    return [os.fspath(each) for each in given]


def open_store(request: RunRequest) -> CacheStore:
    """Open the request's cache roots, refusing those of another format.

    Raises:
        ParameterError: a scope is asked for by a pipeline without a name.
    """
    roots = [open_storage(url, request.storage_options) for url in cache_roots(request.cache_dir)]
    if request.cache_read_only:
        roots = [ReadOnlyStorage(root) for root in roots]
    return open_cache(roots, _scope(request))


def _scope(request: RunRequest) -> str | None:
    if request.cache_scope not in get_args(CacheScope):
        raise ParameterError(
            f"There is no cache_scope '{request.cache_scope}': choose 'shared' or 'pipeline'."
        )
    if request.cache_scope == "shared":
        return None
    if not request.pipeline:
        raise ParameterError(
            "A pipeline that keeps its outputs to itself (cache_scope='pipeline') needs a name that stays "
            "the same when its steps change: Pipeline(name=...)."
        )
    return request.pipeline


def plan_run(request: RunRequest, store: CacheStore) -> Plan:
    """Decide what must run; reads the cache, runs nothing."""
    return make_plan(request.pipeline, request.graph, _catalog(request, store), use_cache=request.use_cache)


def _catalog(request: RunRequest, store: CacheStore) -> StoreCatalog:
    return StoreCatalog(store, by_unit=request.verify > 0)


def run(request: RunRequest) -> RunResult:
    """Carry a run out.

    Raises:
        ParameterError: there is no such engine, or another argument is none of those that may be.
        StorageError: a root cannot be read or written, or is read-only and does not hold everything.
        StepError: a step raised; what was finished is stored.
        RunInterruptedError: the run was stopped; likewise.
        RunEndedError: it was ended at once.
    """
    if request.engine not in get_args(Engine):  # a complete hit would not notice
        raise ParameterError(f"There is no engine '{request.engine}': choose 'ray' or 'inline'.")
    if request.on_busy not in get_args(OnBusy):
        raise ParameterError(f"on_busy cannot be '{request.on_busy}': choose 'wait', 'compute' or 'fail'.")
    if not isinstance(request.verify, int | float) or not 0 <= request.verify <= 1:
        raise ParameterError(f"verify is a share of the reused units, from 0 to 1, not {request.verify!r}.")
    if request.wait_for_resources is not None and not _is_seconds(request.wait_for_resources):
        raise ParameterError(
            f"wait_for_resources is a number of seconds, not {request.wait_for_resources!r:.200}."
        )
    if request.engine == "ray" and (alone := [u for u in cache_roots(request.cache_dir) if not is_shared(u)]):
        raise ParameterError(
            f"Only the process that writes to '{alone[0]}' sees what stands there, and Ray's workers are "
            "processes of their own: run with engine='inline', or choose a folder or a bucket as cache_dir."
        )
    with stop_on_signals():
        try:
            return _run(request)
        except (RunEndedError, RunInterruptedError) as stopped:
            if request.use_cache:
                raise
            hint = "Leave use_cache=False out: with it, everything is computed anew."
            raise type(stopped)(f"{stopped} {hint}", signal=stopped.signal) from None


def _run(request: RunRequest) -> RunResult:
    started = time.monotonic()
    store = open_store(request)
    catalog = _catalog(request, store)
    catalog.trusting = True
    plan = make_plan(request.pipeline, request.graph, catalog, use_cache=request.use_cache)
    run_id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    if request.cache_read_only:
        _check_complete(plan, store)
    if not plan.complete:
        store.claim()
    with guarded(request.on_busy, catalog, plan, run_id) as guard:
        if guard.may_change(plan):
            plan = renewed(plan, catalog, use_cache=request.use_cache)
        return _guarded_run(request, plan, guard, started)


def _is_seconds(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < math.inf


def _guarded_run(request: RunRequest, plan: Plan, guard: Guard, started: float) -> RunResult:
    store = guard.catalog.store
    records = RunRecords(guard.catalog, plan, guard.run)
    records.silent = request.cache_read_only or records.are_noted()
    report = RunReport()
    recorder = Recorder(records.write_file)
    emit = _fan_out((report.listen, recorder.listen, guard.listen, *request.listeners))
    emit(RunStarted(guard.run, plan.pipeline, store.storage.url, _decisions(plan)))
    for damage in _damage(plan, guard.catalog):
        emit(DamageFound(damage))
    status, error = "failed", ""
    try:
        manifests = _execute(request, plan, guard, records, emit)
        status = "complete"
    except BaseException as exception:
        interrupted = isinstance(exception, RunInterruptedError | KeyboardInterrupt)
        status, error = "interrupted" if interrupted else "failed", str(exception)
        raise
    finally:
        emit(RunFinished(guard.run, status, time.monotonic() - started, error))
        recorder.flush()
        records.write_file(paths.RUN_FILE, report.model_dump_json(indent=1).encode())
    leaves = {name: manifests[name] for name in plan.graph.leaves()}
    records.write_finished(leaves)
    return RunResult(store, plan, leaves, report)


def _check_complete(plan: Plan, store: CacheStore) -> None:
    """Refuse to compute where nothing may be written."""
    missing = [step for step in plan.steps if step.runs]
    if missing:
        listed = "".join(f"\n  '{step.name}': {step.decision}, {step.reason}" for step in missing)
        raise StorageError(
            f"{store.storage.url} was opened for reading only (cache_read_only) and does not hold all that "
            f"is asked for. These steps would have to run:{listed}\nTo compute them into a root of your own "
            f"and read this one too: cache_dir=['my-cache', '{store.storage.url}'], without cache_read_only."
        )


def _execute(
    request: RunRequest, plan: Plan, guard: Guard, records: RunRecords, emit: Listener
) -> Mapping[str, Manifest]:
    records.write_begun()
    if plan.complete:
        guard.take_leases(plan, emit)
        return _found(plan)
    from distill_ray.engine.run_settings import RunSettings  # a complete hit does without the engine

    settings = RunSettings(
        records.run,
        writer=writer_settings(),
        max_batches=request.max_batches,
        check_share=request.verify,
        flight=guard.flight,
        stages=_stages(request, plan),
    )
    known: set[str] = set()
    for _ in range(MAX_REPAIRS):
        guard.take_leases(plan, emit)
        try:
            return _attempt(request, plan, guard.catalog.store, settings, emit)
        except (CorruptObjectError, DamagedPartError) as error:
            damage = str(error)
        if damage in known:  # it was removed, and the plan rests on it again: a listing lags behind
            time.sleep(LISTING_SECONDS)
        else:
            known.add(damage)
            emit(DamageFound(damage))
        guard.catalog.trusting = False  # a manifest alone is not enough any more
        plan = _with_own_rows(renewed(plan, guard.catalog, use_cache=request.use_cache), guard)
        emit(RunRepaired(_decisions(plan)))
    guard.take_leases(plan, emit)
    return _attempt(request, plan, guard.catalog.store, settings, emit)


def _stages(request: RunRequest, plan: Plan) -> dict[str, int]:
    if not request.stages:
        return {}
    return {step.name: request.stages[owner_of(step.name, request.graph)] for step in plan.steps}


def _with_own_rows(plan: Plan, guard: Guard) -> Plan:
    """Let forced steps find what this very run has stored: it was computed anew, and need not be twice."""

    def found(step: StepPlan) -> StepPlan:
        if step.decision != "forced":
            return step
        indexes = guard.catalog.indexes(step.function)
        return replace(step, indexes=tuple(each for each in indexes if each[1].run == guard.run))

    return replace(plan, steps=tuple(map(found, plan.steps)))


def _attempt(
    request: RunRequest, plan: Plan, store: CacheStore, settings: RunSettings, emit: Listener
) -> Mapping[str, Manifest]:
    """Carry a plan out.

    Raises:
        CorruptObjectError, DamagedPartError: it met stored rows that are damaged, which were removed.
    """
    if plan.complete:
        return _found(plan)
    from distill_ray.engine.execution import execute

    executor = _executor(request, store)
    if request.engine == "inline":
        return execute(plan, store, executor, settings, emit)
    from distill_ray.engine.on_ray.metrics import RayMetrics

    with RayMetrics(plan.pipeline) as metrics:
        return execute(plan, store, executor, settings, _fan_out((emit, metrics.listen)))


def _found(plan: Plan) -> Mapping[str, Manifest]:
    return {step.name: step.manifest for step in plan.steps if step.manifest is not None}


def _damage(plan: Plan, catalog: StoreCatalog) -> Iterator[str]:
    """What the plan was made without, since it is not what was written."""
    for step in plan.steps:
        for reason in step.reasons:
            if reason.kind == "damaged":
                yield f"Step '{step.name}': {reason.text}"
    yield from catalog.damage


def _executor(request: RunRequest, store: CacheStore) -> Executor:
    if request.engine == "inline":
        from distill_ray.engine.inline import InlineExecutor

        return InlineExecutor()
    from distill_ray.engine.on_ray.connection import connect
    from distill_ray.engine.on_ray.executor import RayExecutor

    connect()
    return RayExecutor(store.storage, request.wait_for_resources)


def writer_settings() -> WriterSettings:
    """The default settings, or those of ``DISTILL_RAY_FLUSH_SECONDS``."""
    return WriterSettings(flush_seconds=seconds_in(FLUSH_VARIABLE, WriterSettings.flush_seconds))


def _decisions(plan: Plan) -> tuple[StepDecided, ...]:
    return tuple(
        StepDecided(
            step=step.name,
            decision=step.decision,
            reason=step.reason,
            rows_known=step.rows_known,
            predecessors=plan.graph.predecessors(step.name),
            replicas=plan.graph.steps[step.name].resources.most,
            class_name=step.function.class_name,
            function=step.function.signature,
            output_key=step.output_key,
        )
        for step in plan.steps
    )


def _fan_out(listeners: tuple[Listener, ...]) -> Listener:
    def emit(event: RunEvent) -> None:
        for listener in listeners:
            listener(event)

    return emit
