"""What the scheduler knows of a finished step, as the manifest of its output."""

from __future__ import annotations

from collections.abc import Mapping

from distill_ray.cache.manifest import Manifest, PartEntry, Segment, merge_segments
from distill_ray.engine.scheduling.row_flow import upwards
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.plan import Plan


def made_output(
    name: str, plan: Plan, scheduler: Scheduler, hits: Mapping[str, Manifest], run: str
) -> Manifest:
    """Return the manifest of a step all of whose rows are stored.

    Args:
        name: the step's name.
        plan: the run's plan.
        scheduler: it has finished the step, and all above it that run.
        hits: the manifests of steps above it that do not run.
        run: the run's id.
    """
    state, step = scheduler.steps[name], plan[name]
    numbers: dict[PartEntry, int] = {}
    segments = []
    for piece in state.segments:
        stored = scheduler.blocks.stored_at(piece.block)
        assert stored is not None, f"rows of step '{name}' were committed before they were stored"
        part, first_row = stored
        number = numbers.setdefault(part, len(numbers))
        segments.append(Segment(number, first_row + piece.start, piece.rows))
    return Manifest(
        function=step.function,
        output_key=step.output_key,
        rows=state.counters.rows_out,
        content=state.content,
        parts=tuple(numbers),
        segments=merge_segments(segments),
        lineage=_lineage(name, plan, scheduler, hits),
        run=run,
        seconds=state.counters.seconds,
        input_tokens=state.counters.input_tokens,
        output_tokens=state.counters.output_tokens,
    )


def _lineage(name: str, plan: Plan, scheduler: Scheduler, hits: Mapping[str, Manifest]) -> dict[str, str]:
    """``{output key: content digest}`` of a step and of all above it; they have all ended.

    Of a routing above it also where the rows went.
    """
    lineage: dict[str, str] = {}
    keys = {step.name: step.output_key for step in plan.steps}
    for current in upwards(name, scheduler.steps):
        if current not in scheduler.steps:
            lineage.update(hits[current].lineage)
            continue
        lineage[keys[current]] = scheduler.steps[current].content
        above = plan.graph.predecessors(current)
        routed = [source for source in above if plan.graph.branch(source, current)]
        lineage.update({plan.routing_key(source): scheduler.routes.summary(source) for source in routed})
    return lineage
