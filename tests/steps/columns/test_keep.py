from __future__ import annotations

import pytest

from distill_ray.errors import ParameterError
from distill_ray.steps import KeepColumns


def test_only_the_columns_are_kept_in_their_order() -> None:
    step = KeepColumns(columns=["b", "a"])
    rows = next(step.process([{"a": 1, "b": 2, "c": 3}, {"a": None}]))
    assert [list(row.items()) for row in rows] == [[("b", 2), ("a", 1)], [("a", None)]]
    assert step.inputs == step.outputs == ["b", "a"]


def test_no_columns_at_all_is_an_error() -> None:
    with pytest.raises(ParameterError, match="columns"):
        KeepColumns(columns=[])
