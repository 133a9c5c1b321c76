"""Renaming of columns on the way into and out of a step (``input_mappings``, ``output_mappings``).

A step sees its own names. A row's own column of such a name is put aside meanwhile: it stays in the row
under a name nobody uses, so that it goes where the step lets the row go, and comes back after, unless the
step's output took its place.
"""

from __future__ import annotations

from collections.abc import Mapping

from distill_ray.types import Batch, Row

_ASIDE = "\x1fput aside: "


def to_step_names(batch: Batch, input_mappings: Mapping[str, str]) -> Batch:
    """Give each row the step's names.

    Args:
        batch: rows as the predecessors made them.
        input_mappings: ``{name in the step: column}``.
    """
    if not input_mappings:
        return batch
    names = {name: _ASIDE + name for name in input_mappings}
    names.update({column: name for name, column in input_mappings.items()})
    return [{names.get(key, key): value for key, value in row.items()} for row in batch]


def to_pipeline_names(
    batch: Batch, input_mappings: Mapping[str, str], output_mappings: Mapping[str, str]
) -> Batch:
    """Give each output row the pipeline's names again. What the step itself renames or makes goes first.

    Args:
        batch: rows as the step yielded them.
        input_mappings: ``{name in the step: column}``.
        output_mappings: ``{name in the step: column}``.
    """
    if not input_mappings and not output_mappings:
        return batch
    names = {**input_mappings, **output_mappings}
    return [_to_pipeline(row, names) for row in batch]


def _to_pipeline(row: Row, names: Mapping[str, str]) -> Row:
    renamed = {names[key]: value for key, value in row.items() if key in names}
    kept = {key: value for key, value in row.items() if key not in names and not key.startswith(_ASIDE)}
    aside = {key[len(_ASIDE) :]: value for key, value in row.items() if key.startswith(_ASIDE)}
    values = {**aside, **kept, **renamed}
    order = (names.get(key, key).removeprefix(_ASIDE) for key in row)
    return {key: values[key] for key in dict.fromkeys(order)}
