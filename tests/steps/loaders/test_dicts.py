from __future__ import annotations

import pytest

from distill_ray.steps import LoadDataFromDicts


def test_rows_in_memory_are_yielded_in_batches_from_an_offset_on() -> None:
    loader = LoadDataFromDicts(data=[{"n": n} for n in range(5)], batch_size=2)
    assert [(len(rows), last) for rows, last in loader.process()] == [(2, False), (2, False), (1, True)]
    assert list(loader.process(offset=3)) == [([{"n": 3}, {"n": 4}], True)]


@pytest.mark.parametrize(("count", "offset"), [(0, 0), (4, 4), (4, 9)])
def test_where_no_rows_are_left_an_empty_last_batch_says_so(count: int, offset: int) -> None:
    loader = LoadDataFromDicts(data=[{"n": n} for n in range(count)], batch_size=2)
    assert list(loader.process(offset=offset)) == [([], True)]


def test_the_columns_of_rows_in_memory_are_all_their_keys() -> None:
    assert LoadDataFromDicts(data=[{"a": 1}, {"c": 1, "a": 2}, {"b": 1}]).outputs == ["a", "c", "b"]


def test_a_step_that_changes_its_rows_in_place_does_not_change_the_loaders_data() -> None:
    loader = LoadDataFromDicts(data=[{"n": 1}])
    next(loader.process())[0][0]["n"] = 2
    assert loader.data == [{"n": 1}]
