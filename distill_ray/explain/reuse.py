"""What a step will find of what is stored, worked out from digests alone, and what that cost once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import StoredUnits
from distill_ray.explain.explanation import Certainty, Reuse
from distill_ray.explain.unit_lookup import find_units, units_of
from distill_ray.steps.base import Step, is_row_wise

AT_ONCE: Final = 1_000
"""Units that are looked up at once, as in a run."""

Indexes = Sequence[tuple[PartEntry, UnitIndex]]


def reuse_of_output(manifest: Manifest) -> Reuse:
    """A complete output is found as it is."""
    return Reuse(
        "exact",
        rows=manifest.rows,
        input_rows_to_compute=0,
        seconds=manifest.seconds,
        input_tokens=manifest.input_tokens,
        output_tokens=manifest.output_tokens,
    )


def reuse_at_most(indexes: Indexes, input_rows: int | None) -> Reuse:
    """Nobody knows what the step will be given: no more is found than is stored."""
    units = Counter({part.name: len(index.counts) for part, index in indexes})
    rows = sum(index.rows for _, index in indexes)
    return replace(_cost(units, indexes), certainty="at most", rows=rows, input_rows=input_rows)


def reuse_of_units(
    step: Step,
    inputs: Sequence[bytes],
    declared: bytes | None,
    indexes: Indexes,
    taken: Sequence[Manifest] = (),
) -> Reuse:
    """Look each unit up, as a run does.

    Args:
        step: the step.
        inputs: for each predecessor the digests of its rows, 16 bytes a row.
        declared: for a row-wise step those of the declared columns of its first predecessor's rows, where
            these are known: without them more may be found than is told.
        indexes: what its parts hold.
        taken: outputs of equal steps, whose rows are not given again.
    """
    stored = StoredUnits(indexes, taken, step.output_limit)
    wanted = units_of(step, inputs, declared)
    rows, total, missing = 0, 0, 0
    units: Counter[str] = Counter()
    while window := list(islice(wanted, AT_ONCE)):
        for unit, found in zip(window, find_units(window, stored), strict=True):
            total += len(unit.rows[0])
            if found is None:
                missing += len(unit.rows[0])
            else:
                rows += found.rows
                units[found.part.name] += 1
    guessed = is_row_wise(step) and declared is None and missing > 0 and len(stored) > 0
    cost = _cost(units, indexes)
    certainty: Certainty = "at least" if guessed else "exact"
    return replace(cost, certainty=certainty, rows=rows, input_rows=total, input_rows_to_compute=missing)


def _cost(units: Counter[str], indexes: Indexes) -> Reuse:
    """What so many units of each part cost. They have equal shares in it: costs are kept by part."""
    seconds, input_tokens, output_tokens = 0.0, 0.0, 0.0
    for part, index in indexes:
        if index.counts:
            share = units[part.name] / len(index.counts)
            seconds += share * index.seconds
            input_tokens += share * index.input_tokens
            output_tokens += share * index.output_tokens
    return Reuse(
        "exact", seconds=seconds, input_tokens=round(input_tokens), output_tokens=round(output_tokens)
    )
