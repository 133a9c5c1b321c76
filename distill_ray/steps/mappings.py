"""Renaming of columns on the way into and out of a step (``input_mappings``, ``output_mappings``).

A step sees its own names. A row's own column of that name is put aside meanwhile, and comes back
after, unless the step's output took its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from distill_ray.types import Batch, Row


def rename_inputs(batch: Batch, input_mappings: Mapping[str, str]) -> tuple[Batch, list[Row]]:
    """Give each row the step's names; the second result holds what was put aside, row by row.

    Args:
        batch: rows as the predecessors made them.
        input_mappings: ``{name in the step: column}``.
    """
    if not input_mappings:
        return batch, []
    to_step = {column: name for name, column in input_mappings.items()}
    renamed: Batch = []
    aside: list[Row] = []
    for row in batch:
        aside.append({name: row[name] for name in input_mappings if name in row and name not in to_step})
        kept = {key: value for key, value in row.items() if key not in aside[-1]}
        renamed.append({to_step.get(key, key): value for key, value in kept.items()})
    return renamed, aside


def rename_outputs(
    batch: Batch,
    input_mappings: Mapping[str, str],
    output_mappings: Mapping[str, str],
    aside: Iterable[Row] = (),
) -> Batch:
    """Give each output row the pipeline's names again, and back what `rename_inputs` put aside.

    Args:
        batch: rows as the step yielded them.
        input_mappings: ``{name in the step: column}``.
        output_mappings: ``{name in the step: column}``.
        aside: what was put aside for the rows in their order; fewer than rows is fine.
    """
    if not input_mappings and not output_mappings:
        return batch
    names = {**input_mappings, **output_mappings}
    renamed = [{names.get(key, key): value for key, value in row.items()} for row in batch]
    for row, kept in zip(renamed, aside, strict=False):
        for key, value in kept.items():
            row.setdefault(key, value)
    return renamed
