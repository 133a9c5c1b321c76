"""Arrays of Python values are those that Arrow itself makes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.cache.arrays import make_array

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["", "a", "ü" * 99]),
    pa.bool_(): st.booleans(),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[pa.DataType, list[Any]]:
    kind = draw(st.sampled_from(list(SCALARS)))
    value = SCALARS[kind]
    if draw(st.booleans()):
        kind, value = pa.list_(pa.field("element", kind)), st.lists(st.none() | value, max_size=3)
    return kind, draw(st.lists(value) | st.lists(st.none() | value) | st.lists(value, min_size=130))


@settings(deadline=None)
@given(columns())
def test_an_array_is_the_one_that_arrow_makes(column: tuple[pa.DataType, list[Any]]) -> None:
    kind, values = column
    made, expected = make_array(values, kind), pa.array(values, kind)
    made.validate(full=True)
    assert made.type == expected.type
    assert made.null_count == expected.null_count
    assert made.equals(expected)


def test_text_may_be_given_as_utf8() -> None:
    assert make_array(["ü".encode(), None, b"b"], pa.string()).to_pylist() == ["ü", None, "b"]


def test_what_the_type_cannot_hold_is_refused() -> None:
    with pytest.raises(OverflowError):
        make_array([2**63], pa.int64())
    with pytest.raises(UnicodeEncodeError):
        make_array(["\ud800"], pa.string())


def test_neither_making_nor_pickling_rows_imports_pandas() -> None:
    code = (
        "import pickle, sys\n"
        "from distill_ray.cache.rows import decode_rows, encode_rows\n"
        "from distill_ray.cache.unit_index import UnitIndex\n"
        "from distill_ray.cache.writer import Block\n"
        "rows = [{'a': 1, 'b': 1.5, 'c': True, 'd': 'x', 'e': [1], 'f': {'g': 1}}, {'a': None}]\n"
        "block = Block(1, encode_rows(rows).slice(1), UnitIndex(b'', (), b'', 'run'))\n"
        "assert decode_rows(pickle.loads(pickle.dumps(block)).table) == rows[1:]\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
