"""Rows come back exactly, and their digests tell them apart."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.cache.part import decode_part, encode_part
from distill_ray.cache.rows import DIGEST_SIZE, MARK, concat_tables, decode_rows, encode_rows, row_digests
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.errors import CorruptObjectError, RowError
from tests.cache.json_rows import row_lists, same, same_rows, values

many = settings(max_examples=300, deadline=None)


def digest_list(rows: list[dict[str, Any]]) -> list[bytes]:
    digests = row_digests(rows)
    return [digests[at : at + DIGEST_SIZE] for at in range(0, len(digests), DIGEST_SIZE)]


def through_parquet(table: pa.Table) -> pa.Table:
    count = table.num_rows
    index = UnitIndex(bytes(16 * count), (1,) * count, bytes(16 * count), "run", (), 0.0, 0, 0)
    return decode_part(encode_part(table, index))[0]


@many
@given(row_lists())
def test_decoding_gives_back_what_was_encoded(rows: list[dict[str, Any]]) -> None:
    assert same_rows(decode_rows(encode_rows(rows)), rows)


@many
@given(row_lists())
def test_a_table_is_the_same_after_it_was_in_a_part(rows: list[dict[str, Any]]) -> None:
    table = encode_rows(rows)
    read = through_parquet(table)
    assert read.schema.equals(table.schema, check_metadata=True)
    assert same_rows(decode_rows(read), rows)


@many
@given(row_lists(), st.data())
def test_a_slice_of_a_table_holds_its_rows(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(rows)))
    count = data.draw(st.integers(0, len(rows) - first))
    assert same_rows(decode_rows(encode_rows(rows).slice(first, count)), rows[first : first + count])


@many
@given(st.lists(row_lists(), max_size=4))
def test_joined_tables_hold_the_rows_of_all(lists: list[list[dict[str, Any]]]) -> None:
    joined = concat_tables([encode_rows(rows) for rows in lists])
    assert same_rows(decode_rows(joined), [row for rows in lists for row in rows])


@many
@given(row_lists())
def test_a_digest_is_the_same_before_and_after_storage(rows: list[dict[str, Any]]) -> None:
    assert row_digests(decode_rows(encode_rows(rows))) == row_digests(rows)


@many
@given(row_lists())
def test_a_digest_depends_on_its_row_alone(rows: list[dict[str, Any]]) -> None:
    assert row_digests(rows) == b"".join(row_digests([row]) for row in rows)


@many
@given(values, values)
def test_rows_share_a_digest_only_if_they_are_the_same(one: Any, other: Any) -> None:
    equal = row_digests([{"x": one}]) == row_digests([{"x": other}])
    assert equal == same(one, other)


@pytest.mark.parametrize(
    "rows",
    [
        [{"x": 1}, {"x": 1.0}, {"x": True}, {"x": "1"}, {"x": [1]}, {"x": {"1": 1}}],
        [{}, {"x": None}, {"x": "null"}, {"x": ""}, {"x": []}, {"x": {}}, {"x": [None]}],
        [{"x": 0.0}, {"x": -0.0}, {"x": float("nan")}, {"x": "NaN"}, {"x": float("inf")}],
        [{"x": ["a-b"]}, {"x": ["a", "b"]}, {"x": ["a,b"]}, {"x": '["a","b"]'}, {"x": [["a", "b"]]}],
        [{"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 1}, {"b": 2}, {"ab": 12}],
        [{"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}],
        [{"x": "\ud800"}, {"x": "\\ud800"}, {"x": "\ud800\udc00"}, {"x": "\U00010000"}],
        [{"x": 2**64}, {"x": str(2**64)}, {"x": float(2**64)}, {"x": 2**64 + 1}],
    ],
)
def test_rows_that_look_alike_stay_apart(rows: list[dict[str, Any]]) -> None:
    assert len(set(digest_list(rows))) == len(rows)
    assert same_rows(decode_rows(encode_rows(rows)), rows)


def test_the_order_of_a_rows_own_keys_does_not_count() -> None:
    assert row_digests([{"a": 1, "b": 2}]) == row_digests([{"b": 2, "a": 1}])


def test_digests_are_what_they_were_in_earlier_versions() -> None:
    """They are in every part and behind every unit key: another value would empty all caches."""
    rows: list[dict[str, Any]] = [{"text": "é", "n": 1, "x": 0.5}, {"x": [float("nan"), 1e22, 2**70]}, {}]
    assert [digest.hex() for digest in digest_list(rows)] == [
        "c64d1f98dfcc2730b84b8744e5c3d69f",
        "5b1f614a6a8ed5f1394ca326a538631e",
        "44136fa355b3678a1146ad16f7e8649e",
    ]


def test_columns_are_native_where_a_type_holds_every_value() -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a", "n": 1, "x": 0.5, "yes": True, "words": ["a", "b"], "none": None},
        {"text": None, "n": 2, "x": -0.0, "yes": False, "words": [], "none": None},
    ]
    types = {field.name: field.type for field in encode_rows(rows).schema}
    assert types["text"] == pa.string()
    assert types["n"] == pa.int64()
    assert types["x"] == pa.float64()
    assert types["yes"] == pa.bool_()
    assert types["words"].value_type == pa.string()
    assert types["none"] == pa.null()


def test_other_columns_are_json_that_any_tool_can_read() -> None:
    table = encode_rows([{"chat": [{"role": "user", "content": "é"}]}, {"chat": [{"role": "system"}]}])
    assert table.column("chat").to_pylist() == ['[{"role":"user","content":"é"}]', '[{"role":"system"}]']


def test_tables_of_one_schema_are_joined_without_a_copy() -> None:
    tables = [encode_rows([{"a": 1}]), encode_rows([]), encode_rows([{"a": 2}])]
    assert concat_tables(tables).column("a").num_chunks == 2


class Color(Enum):
    RED = "red"


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("given_", "stored"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (Color.RED, "red"),
        (Word("a"), "a"),
        (np.int32(3), 3),
        (np.float64(0.5), 0.5),
        (np.array([[1, 2]]), [[1, 2]]),
        (dt.datetime(2025, 1, 2, 3, 4, tzinfo=dt.timezone.utc), "2025-01-02T03:04:00+00:00"),
        ({"k": (Color.RED, np.bool_(True))}, {"k": ["red", True]}),
    ],
)
def test_what_is_normalised_is_stored_and_digested_as_its_plain_form(given_: Any, stored: Any) -> None:
    assert same(decode_rows(encode_rows([{"x": given_}])), [{"x": stored}])
    assert row_digests([{"x": given_}]) == row_digests([{"x": stored}])


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, 1j, object(), {1: "a"}, 10**4001, {"\ud800": 1}])
def test_what_cannot_be_stored_exactly_is_refused_with_its_place(value: Any) -> None:
    rows: list[dict[str, Any]] = [{"x": "fine"}, {"x": [value]}]
    for refuse in (encode_rows, row_digests):
        with pytest.raises(RowError, match=r"Row 1, `x"):
            refuse(rows)


def test_a_table_of_another_encoding_is_refused() -> None:
    field = pa.field("x", pa.string(), metadata={MARK: b'{"encoding":"pickle"}'})
    table = pa.Table.from_arrays([pa.array(["a"])], schema=pa.schema([field]))
    with pytest.raises(CorruptObjectError, match="'x' has the encoding 'pickle'"):
        decode_rows(table)


@pytest.mark.parametrize("text", ["[1", "1],[2", "1,2", ""])
def test_json_text_that_is_no_value_is_refused(text: str) -> None:
    field = pa.field("x", pa.string(), metadata={MARK: b'{"encoding":"json"}'})
    table = pa.Table.from_arrays([pa.array([text, "0"])], schema=pa.schema([field]))
    with pytest.raises(CorruptObjectError, match="'x'"):
        decode_rows(table)
