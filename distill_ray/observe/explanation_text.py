"""An explanation as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from distill_ray.explain.explanation import Explanation, Reuse, StepExplanation


def explanation_text(explanation: Explanation) -> str:
    """A paragraph for each step."""
    return "\n\n".join("\n".join(_lines(step)) for step in explanation.steps)


def _lines(step: StepExplanation) -> Iterator[str]:
    yield f"{step.step}: {step.decision}"
    if step.reasons:
        yield from (f"  {reason.kind.upper()}: {reason.text}" for reason in step.reasons)
    else:
        yield f"  {step.text}"
    if step.compared_with:
        yield f"  compared with {step.compared_with}"
    if step.data:
        yield f"  rows: {step.data.text}"
    if step.data_note:
        yield f"  rows: {step.data_note}"
    for piece in step.code:
        yield from (f"    {line}" for line in piece.diff.splitlines())
    if step.decision != "not needed":
        yield from (f"  {line}" for line in _reuse_lines(step.reuse))
    yield from (f"  blind spot: {text}" for text in step.blind_spots)


def _reuse_lines(reuse: Reuse) -> Iterator[str]:
    if reuse.certainty == "unknown":
        yield "to reuse: not known before the run"
    else:
        how = "" if reuse.certainty == "exact" else f"{reuse.certainty} "
        yield f"to reuse: {how}{reuse.rows:,} rows{_cost(reuse)}"
    if reuse.input_rows_to_compute is not None and reuse.input_rows is not None:
        bound = {"at least": "at most ", "at most": "at least "}.get(reuse.certainty, "")
        yield f"to compute: {bound}{reuse.input_rows_to_compute:,} of {reuse.input_rows:,} input rows"
    elif reuse.input_rows is not None:
        yield f"to compute: not known before the run, of {reuse.input_rows:,} input rows"


def _cost(reuse: Reuse) -> str:
    if not reuse.rows:
        return ""
    told = [f"{_duration(reuse.seconds)} of computing"]
    if reuse.input_tokens or reuse.output_tokens:
        told.append(f"{reuse.input_tokens:,} tokens read and {reuse.output_tokens:,} written")
    return f", which took {' and '.join(told)}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"
