"""The rows of one split: exact, lazy, sliced like a list."""

from __future__ import annotations

import mmap
import tempfile
from array import array
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.cache.manifest import Segment
from distill_ray.distiset import Dataset, rows
from distill_ray.distiset.parts import HeldParts
from distill_ray.distiset.rows import RowsInParts
from distill_ray.errors import CorruptObjectError
from distill_ray.types import Row
from tests.damage import cut, flip
from tests.distiset.made_rows import Made, chunks, make, same

NUMBERS = [[{"n": n} for n in range(start, start + 10)] for start in (0, 10, 20, 30)]


@pytest.fixture
def numbers(tmp_path: Path) -> Made:
    """40 rows in four parts."""
    return make(tmp_path, NUMBERS)


def ns(dataset: Dataset) -> list[int]:
    return [row["n"] for row in dataset]


@settings(max_examples=150, deadline=None)
@given(parts=chunks, data=st.data())
def test_rows_come_back_exactly_and_slicing_equals_list_slicing(
    parts: list[list[Row]], data: st.DataObject
) -> None:
    rows = [row for part in parts for row in part]
    bounds = st.none() | st.integers(-len(rows) - 2, len(rows) + 2)
    wanted = slice(data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([None, 1, 2, 3, -1, -2])))
    again = slice(data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([None, 1, 2, -1])))
    with tempfile.TemporaryDirectory() as folder:
        dataset = make(Path(folder), parts).dataset
        assert len(dataset) == len(rows)
        assert same(list(dataset), rows)
        assert same(dataset.to_list(), rows)
        assert len(dataset[wanted]) == len(rows[wanted])
        assert same(list(dataset[wanted]), rows[wanted])
        assert same(dataset[wanted].to_list(), rows[wanted])
        assert same(list(dataset[wanted][again]), rows[wanted][again])
        for position in range(-len(rows), len(rows)):
            assert same(dataset[position], rows[position])


@settings(max_examples=100, deadline=None)
@given(parts=chunks, data=st.data())
def test_any_selection_of_scattered_segments_is_in_the_order_asked_for(
    parts: list[list[Row]], data: st.DataObject
) -> None:
    places = [(part, row) for part, rows in enumerate(parts) for row in range(len(rows))]
    order = data.draw(st.permutations(places))
    kept = order[: data.draw(st.integers(0, len(order)))]
    rows = [parts[part][row] for part, row in kept]
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1)) if rows else st.just([]))
    with tempfile.TemporaryDirectory() as folder:
        dataset = make(Path(folder), parts, [Segment(part, row, 1) for part, row in kept]).dataset
        assert same(list(dataset), rows)
        assert same(dataset.select(picked).to_list(), [rows[index] for index in picked])
        assert set(dataset.column_names) == {key for row in rows for key in row}


@settings(max_examples=100, deadline=None)
@given(
    parts=chunks,
    longest=st.integers(1, 3),
    shortest=st.integers(1, 3),
    at_once=st.integers(1, 6),
    data=st.data(),
)
def test_runs_of_any_length_come_in_order_copied_or_not(
    parts: list[list[Row]], longest: int, shortest: int, at_once: int, data: st.DataObject
) -> None:
    runs = [
        Segment(part, first, min(longest, len(found) - first))
        for part, found in enumerate(parts)
        for first in range(0, len(found), longest)
    ]
    order = data.draw(st.permutations(runs))
    wanted = order[: data.draw(st.integers(0, len(order)))]
    expected = [row for run in wanted for row in parts[run.part][run.first_row : run.first_row + run.rows]]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_MIN_MEAN_RUN", shortest)
        patch.setattr(rows, "MAX_GATHERED_ROWS", at_once)
        dataset = make(Path(folder), parts, wanted).dataset
        assert same(list(dataset), expected)
        assert same(dataset.to_list(), expected)
        assert same(dataset.in_memory().to_list(), expected)


def test_long_runs_of_all_rows_are_the_parts_that_were_read_and_no_copies(tmp_path: Path) -> None:
    parts = [[{"n": n} for n in range(first, first + 200)] for first in (0, 1_000)]
    made = make(tmp_path, parts, [Segment(part, first, 100) for first in (0, 100) for part in (0, 1)])
    tables = made.dataset.all_tables()
    starts = [table.column("n").chunk(0).buffers()[1].address for table in tables]
    assert [table.num_rows for table in tables] == [100] * 4
    assert starts[0] == starts[2]
    assert starts[1] == starts[3]


def test_all_rows_may_be_more_text_than_one_arrow_column_can_hold() -> None:
    size = 1_536 << 20  # of memory that nobody touches
    offsets = pa.py_buffer(array("i", [0, 0, size]))
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(mmap.mmap(-1, size))])
    part = pa.table({"text": column})
    stored = RowsInParts(HeldParts((part, part)), [Segment(0, 0, 1), Segment(1, 0, 1)])
    assert Dataset(stored).to_list() == [{"text": ""}, {"text": ""}]


def test_making_and_slicing_a_data_set_reads_nothing(numbers: Made) -> None:
    assert len(numbers.dataset[5:35][::2]) == 15
    assert numbers.storage.reads == []


def test_a_row_or_a_slice_reads_only_the_parts_it_lies_in(numbers: Made) -> None:
    assert numbers.dataset[15] == {"n": 15}
    assert ns(numbers.dataset[12:18]) == list(range(12, 18))
    assert len(set(numbers.storage.reads)) == 1
    assert ns(numbers.dataset[18:22]) == [18, 19, 20, 21]
    assert len(set(numbers.storage.reads)) == 2


def test_walking_through_the_rows_reads_each_part_once(numbers: Made) -> None:
    assert ns(numbers.dataset) == list(range(40))
    assert [numbers.dataset[i]["n"] for i in range(30, 40)] == list(range(30, 40))
    assert len(numbers.storage.reads) == 4


def test_gathering_rows_of_several_parts_reads_each_part_once(tmp_path: Path) -> None:
    interleaved = [Segment(part, row, 1) for row in range(10) for part in range(4)]
    made = make(tmp_path, NUMBERS, interleaved)
    assert ns(made.dataset) == [part * 10 + row for row in range(10) for part in range(4)]
    assert len(made.storage.reads) == 4


def test_long_stretches_of_several_parts_that_alternate_read_each_part_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_GATHERED_ROWS", 16)
    alternating = [Segment(part, row, 5) for row in (0, 5) for part in range(4)]
    made = make(tmp_path, NUMBERS, alternating)
    assert ns(made.dataset) == [part * 10 + row + n for row in (0, 5) for part in range(4) for n in range(5)]
    assert len(made.storage.reads) == 4


def test_the_columns_are_known_without_reading_rows(tmp_path: Path) -> None:
    made = make(tmp_path, [[{"a": 1}], [{"b": {"x": 1}}, {"a": 2}], [], [{}]])
    assert made.dataset.column_names == ["a", "b"]
    assert made.dataset[:1].column_names == ["a", "b"]
    assert made.storage.reads == []


def test_rows_of_other_outputs_in_a_part_bring_no_columns(tmp_path: Path) -> None:
    made = make(tmp_path, [[{"ours": 1}, {"theirs": 2}]], [Segment(0, 0, 1)])
    assert made.dataset.column_names == ["ours"]


def test_a_column_is_a_list_with_none_where_a_row_has_no_such_key(tmp_path: Path) -> None:
    dataset = make(tmp_path, [[{"a": 1, "b": None}], [{"c": 2}], [{"a": 3}]]).dataset
    assert dataset["a"] == [1, None, 3]
    assert dataset[1:]["a"] == [None, 3]
    assert dataset.to_dict() == {"a": [1, None, 3], "b": [None, None, None], "c": [None, 2, None]}
    with pytest.raises(KeyError, match="no column 'd': there are a, b, c"):
        dataset["d"]


def test_hidden_columns_are_in_nothing_that_a_data_set_gives(tmp_path: Path) -> None:
    rows: list[Row] = [{"secret": 1}, {"a": 2, "secret": 3}]
    dataset = make(tmp_path, [rows], hidden=["secret"]).dataset
    assert dataset.column_names == ["a"]
    assert dataset.to_list() == [{}, {"a": 2}]
    assert dataset[0] == {}
    assert dataset.to_arrow().column_names == ["a"]
    assert dataset.in_memory().to_list() == [{}, {"a": 2}]
    assert dataset.in_memory().column_names == ["a"]


@pytest.mark.parametrize("position", [40, -41])
def test_a_position_out_of_range_is_an_index_error(numbers: Made, position: int) -> None:
    with pytest.raises(IndexError, match="there are 40 rows"):
        numbers.dataset[position]


def test_what_is_in_memory_needs_its_parts_no_more(numbers: Made) -> None:
    held = numbers.dataset[5:25].in_memory()
    for part in range(4):
        numbers.path(part).unlink()
    assert ns(held) == list(range(5, 25))
    assert held.column_names == ["n"]


def damage(made: Made) -> None:
    flip(made.path(2))


@pytest.mark.parametrize("harm", [damage, lambda made: made.path(2).unlink()], ids=["damaged", "gone"])
def test_a_damaged_or_vanished_part_is_an_error_that_names_leaf_part_and_remedy(
    numbers: Made, harm: Any
) -> None:
    harm(numbers)
    assert ns(numbers.dataset[:20]) == list(range(20))
    with pytest.raises(CorruptObjectError, match=r"(?is)leaf 'answers'.*/p2-.*run.*again.*comput"):
        numbers.dataset.to_list()


@pytest.mark.parametrize("harm", [damage, lambda made: made.path(2).unlink()], ids=["damaged", "gone"])
def test_asking_for_the_columns_of_a_damaged_part_is_the_same_error(numbers: Made, harm: Any) -> None:
    harm(numbers)
    path = numbers.path(2)
    if path.exists():
        cut(path, 50)
    with pytest.raises(CorruptObjectError, match=r"(?is)leaf 'answers'.*/p2-.*run.*again.*comput"):
        assert numbers.dataset.column_names
