"""A part is read back exactly, or not at all."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.cache.part import check_footer, decode_index, decode_part, encode_part, footer_size
from distill_ray.cache.rows import decode_rows, encode_rows, row_digests
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.errors import CorruptObjectError
from tests.cache.json_rows import row_lists, same_rows

ROWS: list[dict[str, Any]] = [{"text": "one", "n": 1}, {"text": "two"}, {"text": None, "n": 3}]


def index_of(rows: list[dict[str, Any]], counts: tuple[int, ...]) -> UnitIndex:
    keys = b"".join(bytes([number]) * 16 for number in range(len(counts)))
    return UnitIndex(keys, counts, row_digests(rows), "run-1", ("older",), 1.5, 10, 20)


def part_of(rows: list[dict[str, Any]], counts: tuple[int, ...]) -> bytes:
    return encode_part(encode_rows(rows), index_of(rows, counts))


@settings(deadline=None)
@given(row_lists(), st.data())
def test_rows_and_index_come_back(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    edges = [0, *cuts, len(rows)]
    counts = tuple(end - start for start, end in pairwise(edges))
    table, index = decode_part(part_of(rows, counts))
    assert same_rows(decode_rows(table), rows)
    assert index == index_of(rows, counts)


def test_the_index_is_read_from_the_end_of_the_file_alone() -> None:
    data = part_of([{"text": "x" * n} for n in range(1000)], (1,) * 200 + (800,))
    needed = footer_size(data[-8:])
    assert needed < len(data)
    assert decode_index(data[-needed:]) == decode_index(data) == decode_part(data)[1]
    with pytest.raises(CorruptObjectError):
        decode_index(data[-needed + 1 :])


def test_a_part_may_hold_units_without_rows_only() -> None:
    table, index = decode_part(part_of([], (0, 0)))
    assert table.num_rows == 0
    assert index.counts == (0, 0)


def test_any_tool_reads_a_part_with_the_users_columns_and_nothing_else() -> None:
    table = pq.read_table(pa.BufferReader(part_of(ROWS, (3,))))
    assert table.column_names == ["text", "n"]
    assert table.column("n").to_pylist() == [1, None, 3]


def test_every_flipped_bit_is_detected() -> None:
    data = part_of(ROWS, (1, 2))
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(CorruptObjectError):
            decode_part(bytes(flipped))


def test_every_flipped_bit_of_the_footer_is_detected_from_the_footer() -> None:
    data = part_of(ROWS, (1, 2))
    footer = data[-footer_size(data) :]
    for position in range(len(footer)):
        flipped = bytearray(footer)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(CorruptObjectError):
            decode_index(bytes(flipped))


def test_every_cut_is_detected() -> None:
    data = part_of(ROWS, (1, 2))
    for size in range(len(data)):
        for cut in (data[:size], data[len(data) - size :]):
            with pytest.raises(CorruptObjectError):
                decode_part(cut)


@settings(deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"PAR1", b"\x10\x00\x00\x00PAR1", b"\xff\xff\xff\xffPAR1"])
)
def test_other_bytes_are_no_part(data: bytes, ending: bytes) -> None:
    for read in (decode_part, decode_index):
        with pytest.raises(CorruptObjectError):
            read(data + ending)


def test_parquet_of_others_is_no_part() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}), sink)
    for read in (decode_part, decode_index):
        with pytest.raises(CorruptObjectError, match="unit index is missing"):
            read(sink.getvalue())


def test_parts_of_equal_footers_but_for_the_rows_have_different_digests() -> None:
    digests = {check_footer(part_of([{"n": n}], (1,))) for n in range(50)}
    assert len(digests) == 50


def test_a_part_of_millions_of_rows_can_be_read() -> None:
    """Its index is longer than the texts that pyarrow reads in a footer by default."""
    count = 4_800_000
    index = UnitIndex(bytes(16), (count,), bytes(16 * count), "run", (), 0.0, 0, 0)
    data = encode_part(pa.table({"n": pa.nulls(count)}), index)
    assert footer_size(data) > 100_000_000
    assert decode_part(data)[1] == index


def test_an_index_takes_a_few_bytes_a_row() -> None:
    count = 10_000
    index = UnitIndex(bytes(16 * count), (1,) * count, bytes(16 * count), "run", (), 0.0, 0, 0)
    data = encode_part(pa.table({"n": pa.nulls(count)}), index)
    assert footer_size(data) / count < 46  # 32 bytes of key and digest, in base64


@pytest.mark.parametrize(
    "index",
    [
        UnitIndex(bytes(16), (1,), bytes(16), "run", (), 0.0, 0, 0),
        UnitIndex(bytes(15), (3,), bytes(48), "run", (), 0.0, 0, 0),
        UnitIndex(bytes(32), (4, -1), bytes(48), "run", (), 0.0, 0, 0),
        UnitIndex(bytes(16), (3,), bytes(47), "run", (), 0.0, 0, 0),
    ],
)
def test_an_index_that_does_not_fit_its_table_is_refused(index: UnitIndex) -> None:
    with pytest.raises(ValueError, match="does not fit the table"):
        encode_part(encode_rows(ROWS), index)
