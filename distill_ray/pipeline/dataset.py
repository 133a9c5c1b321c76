"""Rows given to a run (``run(dataset=...)``) as a step that loads them."""

from __future__ import annotations

from typing import Any

from distill_ray.errors import ParameterError
from distill_ray.steps.base import ACTIVE_REGISTRY, BaseStep
from distill_ray.steps.loaders.dicts import LoadDataFromDicts


def source_step(dataset: Any, batch_size: int) -> BaseStep:
    """Make the step.

    Args:
        dataset: a list of dicts, a Hugging Face dataset, a pandas data frame or an Arrow table.
        batch_size: rows in each batch.

    Raises:
        ParameterError: it is none of these.
    """
    token = ACTIVE_REGISTRY.set(None)  # the step belongs to the run, not to the pipeline
    try:
        return LoadDataFromDicts(name="dataset", data=_rows(dataset), batch_size=batch_size)
    finally:
        ACTIVE_REGISTRY.reset(token)


def _rows(dataset: Any) -> list[dict[str, Any]]:
    if isinstance(dataset, list):
        return dataset
    if hasattr(dataset, "to_pylist"):  # pyarrow.Table
        return list(dataset.to_pylist())
    if hasattr(dataset, "to_list") and hasattr(dataset, "column_names"):  # datasets.Dataset, our own
        return list(dataset.to_list())
    if hasattr(dataset, "to_dict") and hasattr(dataset, "columns"):  # pandas.DataFrame
        return list(dataset.to_dict(orient="records"))
    raise ParameterError(
        f"`dataset` must be a list of dicts, a Hugging Face dataset (one split), a pandas data frame or an "
        f"Arrow table, not {type(dataset).__name__}."
    )
