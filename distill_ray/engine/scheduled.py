"""A plan as the scheduler sees it: of each step what decides about its batches, and how rows are routed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from distill_ray.engine.run_settings import RunSettings
from distill_ray.engine.scheduling.routing import RouteSpec
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec
from distill_ray.engine.stored_rows import stored_units
from distill_ray.graph.streams import Convergence, convergences
from distill_ray.plan import Plan, StepPlan
from distill_ray.steps.base import GeneratorStep, Step, batches_at_once_of, is_row_wise, kind_of
from distill_ray.steps.declared import declared_columns


def scheduler_of(
    plan: Plan,
    running: Mapping[str, StepPlan],
    settings: RunSettings,
    live_bytes: int,
    awaited: Collection[str],
) -> Scheduler:
    """Return the scheduler of a run.

    Args:
        plan: the run's plan.
        running: the steps that run, by name, each after its predecessors.
        settings: the run's settings.
        live_bytes: bytes that rows may hold in memory between the steps.
        awaited: steps that other runs compute.
    """
    joins = convergences(plan.graph) if plan.routings else {}
    return Scheduler(
        [_spec(plan, name, settings, joins.get(name)) for name in running],
        stored_units(running),
        live_bytes=live_bytes,
        awaited=awaited,
        routes=_routes(plan),
    )


def _spec(plan: Plan, name: str, settings: RunSettings, converges: Convergence | None) -> StepSpec:
    """How the scheduler sees a step."""
    step = plan.graph.steps[name]
    assert isinstance(step, Step | GeneratorStep)
    return StepSpec(
        name=name,
        predecessors=plan.graph.predecessors(name),
        kind=kind_of(step),
        batch_size=step.batch_size if isinstance(step, GeneratorStep) else step.input_batch_size,
        replicas=step.resources.most,
        fewest=step.resources.fewest,
        follows_backlog=isinstance(step.resources.replicas, tuple),
        bundles=tuple(filter(None, step.resources.bundles)),
        stage=settings.stages.get(name, 0),
        max_batches=settings.max_batches,
        columns=declared_columns(step) if isinstance(step, Step) and is_row_wise(step) else None,
        joins_input=isinstance(step, Step) and step.joins_input,
        strides=step.strides if isinstance(step, Step) else (),
        check_share=settings.check_share,
        on_error=step.on_error if isinstance(step, Step) else "raise",
        batches_at_once=batches_at_once_of(step),
        branches=tuple(plan.graph.branch(source, name) for source in plan.graph.predecessors(name)),
        converges=converges,
    )


def _routes(plan: Plan) -> list[RouteSpec]:
    """How the scheduler sees the routings, with what earlier runs chose whose outputs are read."""
    lineage: dict[str, str] = {}
    for step in plan.steps:
        lineage.update(step.manifest.lineage if step.manifest is not None else {})
    return [
        RouteSpec(
            upstream, routing.batch_size, routing.choice, before=lineage.get(plan.routing_key(upstream), "")
        )
        for upstream, routing in plan.routings.items()
    ]
