"""A plan as a text table."""

from __future__ import annotations

from distill_ray.plan import Plan


def plan_table(plan: Plan) -> str:
    """One line a step: name, decision, rows known, reason."""
    rows = [("step", "decision", "rows known", "reason")]
    rows += [(s.name, s.decision, str(s.rows_known), s.reason) for s in plan.steps]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows
    )
