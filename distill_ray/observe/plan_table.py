"""A plan as a text table, and as a record for JSON."""

from __future__ import annotations

from typing import Any

from distill_ray.plan import Plan, StepPlan

COLUMNS = ("step", "decision", "rows known", "to compute", "reason")


def plan_table(plan: Plan) -> str:
    """One line a step: its decision, rows known, input rows to compute, and why; then what it comes to."""
    rows = [COLUMNS]
    rows += [(s.name, s.decision, f"{s.rows_known:,}", _to_compute(s), s.reason) for s in plan.steps]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:<{widths[0]}}  {decision:<{widths[1]}}  {known:>{widths[2]}}  {wanted:>{widths[3]}}  {reason}"
        for name, decision, known, wanted, reason in rows
    ]
    return "\n".join([*lines, "", _outcome(plan)])


def _to_compute(step: StepPlan) -> str:
    """``?`` where it depends on what the run will give; a resumed step finds some of its rows."""
    if step.rows_to_compute is None:
        return "?"
    at_most = "<= " if step.decision == "resume" else ""
    return f"{at_most}{step.rows_to_compute:,}"


def _outcome(plan: Plan) -> str:
    running = [step.name for step in plan.steps if step.runs]
    if not running:
        return "A run would compute nothing: the output is stored."
    return f"A run would work on {len(running)} of {len(plan.steps)} steps: {', '.join(running)}."


def plan_record(plan: Plan) -> dict[str, Any]:
    """What `plan_table` says, and the signatures, as plain values."""
    return {
        "pipeline": plan.pipeline,
        "signature": plan.signature,
        "aggregated_steps_signature": plan.aggregated,
        "complete": plan.complete,
        "steps": {
            step.name: {
                "decision": step.decision,
                "reason": step.reason,
                "reasons": [reason.to_json() for reason in step.reasons],
                "rows_known": step.rows_known,
                "rows_to_compute": step.rows_to_compute,
                "signature": step.function.signature,
                "output_key": step.output_key,
            }
            for step in plan.steps
        },
    }
