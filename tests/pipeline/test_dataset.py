from __future__ import annotations

import warnings
from typing import Any

import pyarrow as pa
import pytest

from distill_ray.errors import ParameterError
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.dataset import source_step
from distill_ray.steps import LoadDataFromDicts

ROWS = [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}]


def given(dataset: Any) -> Any:
    step = source_step(dataset, batch_size=1)
    assert isinstance(step, LoadDataFromDicts)
    return step.data


def test_a_list_of_dicts_and_an_arrow_table_are_rows() -> None:
    assert given(ROWS) == ROWS
    assert given(pa.Table.from_pylist(ROWS)) == ROWS


def test_a_pandas_data_frame_and_a_hugging_face_dataset_are_rows() -> None:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of other libraries
        import datasets

    assert given(pd.DataFrame(ROWS)) == ROWS
    assert given(datasets.Dataset.from_list(ROWS)) == ROWS


def test_batches_are_as_large_as_asked_for() -> None:
    assert [len(rows) for rows, _ in source_step(ROWS, batch_size=1).process()] == [1, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("dataset", ["rows.jsonl", 3, {"n": [1]}])
def test_what_is_no_data_set_is_an_error(dataset: Any) -> None:
    with pytest.raises(ParameterError, match=f"not {type(dataset).__name__}"):
        given(dataset)


def test_rows_that_are_no_dicts_are_an_error() -> None:
    with pytest.raises(ParameterError, match=r"Step 'dataset' .*'data\.0'"):
        given([1, 2])


def test_the_step_joins_no_pipeline() -> None:
    with Pipeline(name="p") as pipeline:
        source_step(ROWS, batch_size=1)
    assert pipeline.graph.steps == {}
