"""One run of a pipeline, in a straight line: open the cache, plan, execute, record, hand out the rows."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from distill_ray.cache import paths
from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.manifest import Manifest
from distill_ray.cache.store import CacheStore
from distill_ray.cache.writer import WriterSettings
from distill_ray.engine.execution import Executor, RunSettings, execute
from distill_ray.errors import ParameterError, RunInterruptedError
from distill_ray.events import Listener, RunEvent, RunFinished, RunStarted, StepDecided
from distill_ray.graph import Graph
from distill_ray.observe.recorder import Recorder
from distill_ray.observe.report import RunReport
from distill_ray.plan import Plan, make_plan
from distill_ray.storage import open_storage

Engine: TypeAlias = Literal["ray", "inline"]

CACHE_DIR_VARIABLE = "DISTILL_RAY_CACHE_DIR"
FLUSH_VARIABLE = "DISTILL_RAY_FLUSH_SECONDS"


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked to do.

    Attributes:
        pipeline: the pipeline's name, if it was given one.
        graph: the checked graph, with the run's parameters.
        cache_dir: URL or path of the cache root; None takes the default.
        storage_options: for the root's filesystem.
        use_cache: False computes everything anew.
        engine: ``"ray"`` or ``"inline"``.
        listeners: who else hears of the run's events.
        max_batches: batches that each generator makes; 0 is no limit.
    """

    pipeline: str | None
    graph: Graph
    cache_dir: str | os.PathLike[str] | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    use_cache: bool = True
    engine: Engine = "ray"
    listeners: tuple[Listener, ...] = ()
    max_batches: int = 0


@dataclass(frozen=True)
class RunResult:
    """What a run came to: where its leaves' rows are, and its record."""

    store: CacheStore
    plan: Plan
    leaves: Mapping[str, Manifest]
    report: RunReport


def cache_root(cache_dir: str | os.PathLike[str] | None) -> str:
    """The root to use: the one given, else ``DISTILL_RAY_CACHE_DIR``, else ``~/.cache/distill_ray``."""
    given = os.fspath(cache_dir) if cache_dir is not None else os.environ.get(CACHE_DIR_VARIABLE)
    return given or str(Path.home() / ".cache" / "distill_ray")


def open_store(request: RunRequest) -> CacheStore:
    """Open the request's cache root, refusing one of another format."""
    store = CacheStore(open_storage(cache_root(request.cache_dir), request.storage_options))
    store.check_format()
    return store


def plan_run(request: RunRequest, store: CacheStore) -> Plan:
    """Decide what must run; reads the cache, runs nothing."""
    return make_plan(request.pipeline, request.graph, StoreCatalog(store), use_cache=request.use_cache)


def run(request: RunRequest) -> RunResult:
    """Carry a run out.

    Raises:
        ParameterError: there is no such engine.
        StepError: a step raised; what was finished is stored.
        RunInterruptedError: the run was stopped; likewise.
    """
    if request.engine not in get_args(Engine):  # a complete hit would not notice
        raise ParameterError(f"There is no engine '{request.engine}': choose 'ray' or 'inline'.")
    started = time.monotonic()
    store = open_store(request)
    plan = plan_run(request, store)
    run_id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    report = RunReport()
    recorder = Recorder(lambda name, data: store.write_run_file(run_id, name, data))
    emit = _fan_out((report.listen, recorder.listen, *request.listeners))
    emit(RunStarted(run_id, plan.pipeline, store.storage.url, _decisions(plan)))
    status, error = "failed", ""
    try:
        manifests = _execute(request, plan, store, run_id, emit)
        status = "complete"
    except BaseException as exception:
        interrupted = isinstance(exception, RunInterruptedError | KeyboardInterrupt)
        status, error = "interrupted" if interrupted else "failed", str(exception)
        raise
    finally:
        emit(RunFinished(run_id, status, time.monotonic() - started, error))
        recorder.flush()
        store.write_run_file(run_id, "run.json", report.model_dump_json(indent=1).encode())
    leaves = {name: manifests[name] for name in plan.graph.leaves()}
    _record_pipeline(store, plan, leaves, run_id)
    return RunResult(store, plan, leaves, report)


def _execute(
    request: RunRequest, plan: Plan, store: CacheStore, run_id: str, emit: Listener
) -> Mapping[str, Manifest]:
    if not plan.complete:
        store.claim()
    _write_records(store, {paths.latest_record(plan.pipeline): _steps_record(plan, run_id)})
    if plan.complete:
        return {step.name: step.manifest for step in plan.steps if step.manifest is not None}
    settings = RunSettings(run_id, writer=writer_settings(), max_batches=request.max_batches)
    return execute(plan, store, _executor(request.engine), settings, emit)


def _executor(engine: Engine) -> Executor:
    if engine == "inline":
        from distill_ray.engine.inline import InlineExecutor

        return InlineExecutor()
    from distill_ray.engine.on_ray.connection import connect
    from distill_ray.engine.on_ray.executor import RayExecutor

    connect()
    return RayExecutor()


def writer_settings() -> WriterSettings:
    """The default settings, or those of ``DISTILL_RAY_FLUSH_SECONDS``."""
    given = os.environ.get(FLUSH_VARIABLE)
    try:
        return WriterSettings(flush_seconds=float(given)) if given else WriterSettings()
    except ValueError as error:
        raise ParameterError(f"{FLUSH_VARIABLE} must be a number of seconds, not {given!r}.") from error


def _decisions(plan: Plan) -> tuple[StepDecided, ...]:
    return tuple(
        StepDecided(
            step=step.name,
            decision=step.decision,
            reason=step.reason,
            rows_known=step.rows_known,
            predecessors=plan.graph.predecessors(step.name),
            replicas=plan.graph.steps[step.name].resources.replicas,
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


def _record_pipeline(store: CacheStore, plan: Plan, leaves: Mapping[str, Manifest], run_id: str) -> None:
    """Remember what a finished run came to."""
    record = {
        "name": plan.pipeline,
        "signature": plan.signature,
        "aggregated_steps_signature": plan.aggregated,
        "run": run_id,
        "leaves": {
            name: {
                "class": manifest.function.class_name,
                "function": manifest.function.signature,
                "output_key": manifest.output_key,
                "rows": manifest.rows,
            }
            for name, manifest in leaves.items()
        },
    }
    records = {
        paths.pipeline_record(plan.pipeline, plan.signature, plan.aggregated): record,
        paths.finished_record(plan.pipeline): _steps_record(plan, run_id),
    }
    _write_records(store, records)


def _steps_record(plan: Plan, run_id: str) -> dict[str, Any]:
    """The steps of a run: what a later plan compares its own with, to say what changed."""
    steps = {
        step.name: {
            "class": step.function.class_name,
            "function": step.function.signature,
            "output_key": step.output_key,
            "predecessors": list(plan.graph.predecessors(step.name)),
        }
        for step in plan.steps
    }
    return {"name": plan.pipeline, "run": run_id, "steps": steps}


def _write_records(store: CacheStore, records: Mapping[str, Mapping[str, Any]]) -> None:
    for path, record in records.items():
        store.write_record(path, record)
