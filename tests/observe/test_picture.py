"""A pipeline's graph as text for terminals."""

from __future__ import annotations

import pytest

from distill_ray.observe.picture import picture, show
from distill_ray.pipeline import Pipeline
from distill_ray.steps import KeepColumns, LoadDataFromDicts


def pipeline() -> Pipeline:
    with Pipeline(name="p") as made:
        load = LoadDataFromDicts(name="load", data=[{"n": 1}])
        left, right = (KeepColumns(name=name, columns=["n"]) for name in ("left", "right"))
        load >> [left, right]
    return made


def test_each_step_stands_behind_those_it_takes_rows_from() -> None:
    assert picture(pipeline().graph).splitlines() == [
        "[load] LoadDataFromDicts",
        "    load -> [left] KeepColumns",
        "    load -> [right] KeepColumns",
    ]


def test_nothing_is_shown_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show(pipeline().graph)
    assert capsys.readouterr().out == ""
