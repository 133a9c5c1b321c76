"""What progress says in words: how a step stands, and at the end what was reused and what was computed."""

from __future__ import annotations

from distill_ray.events import RunStopping
from distill_ray.observe.standing import RunStanding, StepStanding


def rows_text(step: StepStanding) -> str:
    """``120 / 400``, or ``120`` while nobody knows how many there will be."""
    total = "" if step.rows_total is None else f" / {step.rows_total:,}"
    return f"{step.rows_done:,}{total}"


def rate_text(step: StepStanding, now: float) -> str:
    """``24.1``, or nothing while it cannot be told."""
    rate = step.rate(now)
    if rate is None:
        return ""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def waiting_text(step: StepStanding) -> str:
    """For whom a step waits that another run computes."""
    return f"waits for {step.holder}"


def step_line(step: StepStanding, now: float) -> str:
    """How a running step stands, in one line."""
    if step.holder:
        return f"{step.name}: {rows_text(step)} rows, {waiting_text(step)}"
    advanced = step.advanced
    parts = [f"{rows_text(step)} rows"]
    if rate := rate_text(step, now):
        parts.append(f"{rate} rows/s")
    parts += [f"{advanced.rows_reused:,} reused", f"{advanced.rows_computed:,} computed"]
    parts.append(f"{step.replicas} of {step.decided.replicas} replicas up")
    return f"{step.name}: {', '.join(parts)}"


def stopping_text(event: RunStopping) -> str:
    """For what a run that was asked to stop still waits, and what asking once more costs."""
    if not event.calls:
        return "stopping: what is under way ends, what is finished is stored; once more ends at once"
    calls = ", ".join(f"{count:,} of '{step}'" for step, count in event.calls)
    return (
        f"stopping: what is under way ends (calls: {calls}, for {event.seconds:.0f} s now), what is finished "
        "is stored; once more ends at once, and the next run makes these calls again"
    )


def summary_lines(run: RunStanding) -> list[str]:
    """What became of each step, and of the run; of a complete hit one line says it all."""
    assert run.finished is not None
    seconds = f"{run.finished.seconds:.1f} s"
    pipeline = f"pipeline '{run.started.pipeline}'"
    steps = list(run.steps.values())
    computed = sum(step.advanced.rows_computed for step in steps)
    reused = sum(step.advanced.rows_reused for step in steps)
    if run.complete_hit:
        return [f"{pipeline}: complete hit, {reused:,} rows reused, nothing computed ({seconds})"]
    width = max(len(step.name) for step in steps)
    lines = [f"{step.name:<{width}}  {_outcome(step)}" for step in steps]
    status = "stopped" if run.finished.status == "interrupted" else run.finished.status
    failed = sum(step.advanced.rows_failed for step in steps)
    rows = f"{reused:,} rows reused, {computed:,} computed"
    if failed:
        rows += f", {failed:,} failed: the next run tries them again"
    return [*lines, f"{pipeline}: {status}, {rows} ({seconds})"]


def _outcome(step: StepStanding) -> str:
    advanced, decision = step.advanced, step.decided.decision
    if decision == "not needed":
        return decision
    parts = [f"{decision}: {advanced.rows_reused:,} rows reused, {advanced.rows_computed:,} computed"]
    if advanced.batches_computed:
        batches = "batch" if advanced.batches_computed == 1 else "batches"
        parts.append(f"in {advanced.batches_computed:,} {batches}, {advanced.seconds:.1f} s of work")
    text = " ".join(parts)
    if advanced.input_tokens or advanced.output_tokens:
        text += f", {advanced.input_tokens:,} tokens read, {advanced.output_tokens:,} written"
    if advanced.rows_failed:
        text += f", {advanced.rows_failed:,} input rows failed"
    if advanced.rows_retried:
        text += f", {advanced.rows_retried:,} rows tried again"
    if advanced.rows_checked:
        text += f", {advanced.rows_differing:,} of {advanced.rows_checked:,} verified rows differ"
    if step.state == "failed":
        text += f"; failed: {step.failure.splitlines()[0]}" if step.failure else "; failed"
    elif step.state != "done":
        text += "; not finished"
    return text
