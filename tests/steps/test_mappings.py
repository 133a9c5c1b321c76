from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distill_ray.steps.mappings import to_pipeline_names, to_step_names

NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
ROWS = st.lists(st.dictionaries(NAMES, st.integers(), max_size=5), max_size=4)
MAPPINGS = st.lists(st.tuples(NAMES, NAMES), max_size=3, unique_by=(lambda p: p[0], lambda p: p[1])).map(dict)


def test_a_step_sees_its_own_names() -> None:
    assert to_step_names([{"prompt": "hi", "x": 1}], {"instruction": "prompt"}) == [
        {"instruction": "hi", "x": 1}
    ]


def test_a_column_that_has_the_steps_name_comes_back_after() -> None:
    mappings = {"instruction": "prompt"}
    rows = to_step_names([{"instruction": "old", "prompt": "new"}], mappings)
    assert rows[0]["instruction"] == "new"
    made = [{**row, "generation": "g"} for row in rows]
    assert to_pipeline_names(made, mappings, {"generation": "answer"}) == [
        {"instruction": "old", "prompt": "new", "answer": "g"}
    ]


def test_columns_put_aside_stay_with_their_row_when_a_step_drops_and_doubles_rows() -> None:
    mappings = {"text": "other"}
    rows = to_step_names([{"text": n, "other": -n} for n in range(4)], mappings)
    made = [dict(rows[3]), dict(rows[1]), dict(rows[1])]
    assert to_pipeline_names(made, mappings, {}) == [{"text": n, "other": -n} for n in (3, 1, 1)]


def test_an_output_takes_the_place_of_a_column_wherever_that_stood_in_the_row() -> None:
    for row in ({"generation": "new", "answer": "old"}, {"answer": "old", "generation": "new"}):
        assert to_pipeline_names([row], {}, {"generation": "answer"}) == [{"answer": "new"}]


def test_without_mappings_rows_are_as_they_were() -> None:
    rows = [{"a": 1}]
    assert to_step_names(rows, {}) is rows
    assert to_pipeline_names(rows, {}, {}) is rows


@given(ROWS, MAPPINGS)
def test_the_step_finds_each_mapped_column_under_its_name(rows: list[dict[str, int]], mappings: Any) -> None:
    for before, after in zip(rows, to_step_names(rows, mappings), strict=True):
        for name, column in mappings.items():
            assert after.get(name, None) == before.get(column, None)
        for column in before:
            if column not in mappings and column not in mappings.values():
                assert after[column] == before[column]


@given(ROWS, MAPPINGS)
def test_a_step_that_changes_nothing_gives_the_rows_back(rows: list[dict[str, int]], mappings: Any) -> None:
    assert to_pipeline_names(to_step_names(rows, mappings), mappings, {}) == rows


@given(ROWS, MAPPINGS, NAMES)
def test_what_the_step_made_is_found_under_the_pipelines_name(
    rows: list[dict[str, int]], mappings: Any, column: str
) -> None:
    made = [{**row, "made": "by the step"} for row in to_step_names(rows, mappings)]
    for row in to_pipeline_names(made, mappings, {"made": column}):
        assert row[column] == "by the step"
        assert "made" not in row
        assert not any(key.startswith("\x1f") for key in row)
