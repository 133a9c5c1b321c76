"""Rows as one Arrow table or one data frame over all parts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings

from distill_ray.cache.rows import MARK
from distill_ray.types import Row
from tests.distiset.made_rows import as_exported, chunks, make


def exported(root: Path, *parts: list[Row]) -> pa.Table:
    return make(root, list(parts)).dataset.to_arrow()


def column(root: Path, *values: Any) -> pa.ChunkedArray:
    """One column of values, each in a part of its own."""
    return exported(root, *([{"c": value}] for value in values)).column("c")


@settings(max_examples=200, deadline=None)
@given(parts=chunks)
def test_every_value_is_there_as_it_is_or_as_json_text(parts: list[list[Row]]) -> None:
    rows = [row for part in parts for row in part]
    with tempfile.TemporaryDirectory() as folder:
        dataset = make(Path(folder), parts).dataset
        table = dataset.to_arrow()
    assert table.num_rows == len(rows)
    assert table.column_names == dataset.column_names
    for field in table.schema:
        as_text = MARK in (field.metadata or {})
        for row, value in zip(rows, table.column(field.name).to_pylist(), strict=True):
            given = row.get(field.name)
            found = json.loads(value) if as_text and value is not None else value
            assert as_exported(found) == as_exported(given) or _same_text(found, given)


def _same_text(found: Any, given: Any) -> bool:
    """Texts of lone surrogates, which `json.loads` may have joined."""
    return json.dumps(as_exported(found)) == json.dumps(as_exported(given))


def test_a_column_has_one_type_over_parts_that_store_it_differently(tmp_path: Path) -> None:
    table = exported(
        tmp_path,
        [{"a": 1, "text": None, "list": []}],
        [{"a": 2, "text": "x", "list": ["y"]}, {"a": 3}],
        [{}],
    )
    assert table.schema.field("a").type == pa.int64()
    assert table.schema.field("text").type == pa.string()
    assert table.schema.field("list").type == pa.list_(pa.field("element", pa.string()))
    assert table.to_pydict() == {
        "a": [1, 2, 3, None],
        "text": [None, "x", None, None],
        "list": [[], ["y"], None, None],
    }


def test_dicts_become_structs_with_the_keys_of_all(tmp_path: Path) -> None:
    found = column(tmp_path, {"x": 1}, {"y": {"z": [1.5]}}, None)
    assert found.to_pylist() == [
        {"x": 1, "y": None},
        {"x": None, "y": {"z": [1.5]}},
        None,
    ]


def test_integers_among_floats_become_floats_unless_that_loses_something(tmp_path: Path) -> None:
    assert column(tmp_path / "a", 1, 2.5).type == pa.float64()
    assert column(tmp_path / "b", 2**53 + 1, 2.5).to_pylist() == ["9007199254740993", "2.5"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, "a", None], ["1", '"a"', None]),
        ([True, 1.0], ["true", "1.0"]),
        ([2**70, -1], [str(2**70), "-1"]),
        ([{}, {"a": 1}, [2]], ["{}", '{"a":1}', "[2]"]),
        ([{}], ["{}"]),
        (["\ud800"], ['"\\ud800"']),
        ([{"x": 1}, {"x": "y"}], ['{"x":1}', '{"x":"y"}']),
    ],
)
def test_what_has_no_type_in_common_stays_json_text(
    tmp_path: Path, values: list[Any], texts: list[str]
) -> None:
    found = column(tmp_path, *values)
    assert found.type == pa.string()
    assert found.to_pylist() == texts


def test_dicts_with_a_great_many_keys_stay_json_text(tmp_path: Path) -> None:
    found = column(tmp_path, *[{f"key{first + n}": n for n in range(600)} for first in (0, 600)])
    assert found.type == pa.string()


def test_nan_stays_nan_and_none_is_null(tmp_path: Path) -> None:
    found = column(tmp_path, math.nan, None, 1.0).to_pylist()
    assert math.isnan(found[0])
    assert found[1:] == [None, 1.0]


def test_an_empty_data_set_and_rows_without_keys_have_no_columns(tmp_path: Path) -> None:
    assert exported(tmp_path / "none").shape == (0, 0)
    assert exported(tmp_path / "bare", [{}, {}]).shape == (2, 0)


def test_the_table_can_be_written_to_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = exported(tmp_path, [{"a": [], "b": None, "c": {"x": {"y": None}}, "d": {}}])
    pq.write_table(table, tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == table.to_pylist()


def test_pandas_keeps_integers_exact_where_some_are_missing(tmp_path: Path) -> None:
    frame = make(tmp_path, [[{"a": 2**53 + 1, "t": "x"}, {"t": None}]]).dataset.to_pandas()
    assert str(frame["a"].dtype) == "Int64"
    assert frame["a"][0] == 2**53 + 1
    assert list(frame.columns) == ["a", "t"]
    assert len(frame) == 2


@pytest.mark.parametrize(
    ("library", "call", "extra"),
    [
        ("pandas", "distiset['default']['train'].to_pandas()", "pandas"),
        ("datasets", "distiset.to_datasets()", "hf"),
        ("datasets", "distiset.push_to_hub('me/rows')", "hf"),
    ],
)
def test_without_the_library_the_error_names_the_extra(library: str, call: str, extra: str) -> None:
    script = f"""
import sys
class Uninstalled:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'")
sys.meta_path.insert(0, Uninstalled())
from distill_ray.cache.rows import encode_rows
from distill_ray.distiset import Dataset, Distiset
distiset = Distiset({{"default": {{"train": Dataset.from_tables([encode_rows([{{"a": 1}}])])}}}})
try:
    {call}
except ImportError as error:
    assert "pip install 'distill_ray[{extra}]'" in str(error), error
else:
    raise SystemExit("it went through")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
