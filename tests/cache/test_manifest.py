"""A manifest is read back exactly, or refused."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.manifest import Manifest, PartEntry, Segment, merge_segments
from distill_ray.cache.paths import FunctionId
from distill_ray.errors import CorruptObjectError

MANIFEST = Manifest(
    function=FunctionId("Généré", "f" * 64),
    output_key="k" * 64,
    rows=30,
    content="c" * 64,
    parts=(PartEntry("run-000-00001-ab", 100), PartEntry("run-001-00001-cd", 200)),
    segments=(Segment(0, 0, 10), Segment(1, 5, 15), Segment(0, 10, 5)),
    lineage={"k" * 64: "c" * 64},
    run="run",
    seconds=1.25,
    input_tokens=3,
    output_tokens=4,
)


def test_it_comes_back_as_it_was() -> None:
    assert Manifest.from_json(MANIFEST.to_json(), "here") == MANIFEST


def test_an_output_without_rows_has_a_manifest() -> None:
    empty = replace(MANIFEST, rows=0, parts=(), segments=())
    assert Manifest.from_json(empty.to_json(), "here") == empty


def test_it_is_plain_json() -> None:
    record = orjson.loads(MANIFEST.to_json())
    assert record["rows"] == 30
    assert record["segments"][1] == [1, 5, 15]


def test_every_cut_is_detected() -> None:
    data = MANIFEST.to_json()
    for size in range(len(data)):
        with pytest.raises(CorruptObjectError, match="here"):
            Manifest.from_json(data[:size], "here")


def test_every_flipped_bit_is_detected() -> None:
    data = MANIFEST.to_json()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(CorruptObjectError):
            Manifest.from_json(bytes(flipped), "here")


@given(st.binary())
def test_other_bytes_are_no_manifest(data: bytes) -> None:
    with pytest.raises(CorruptObjectError):
        Manifest.from_json(data, "here")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (replace(MANIFEST, rows=31), "do not add up to its 31 rows"),
        (replace(MANIFEST, segments=(Segment(2, 0, 30),)), "a part that the manifest lacks"),
        (replace(MANIFEST, segments=(Segment(-1, 0, 30),)), "a part that the manifest lacks"),
        (replace(MANIFEST, segments=(Segment(0, -1, 30),)), "begins before its part"),
        (replace(MANIFEST, segments=(Segment(0, 0, 40), Segment(0, 0, -10))), "less than empty"),
        (replace(MANIFEST, parts=(PartEntry("../../other", 1),) * 2), "a part's name or size"),
        (replace(MANIFEST, parts=(PartEntry("a/b", 1),) * 2), "a part's name or size"),
        (replace(MANIFEST, parts=(PartEntry("a", -1),) * 2), "a part's name or size"),
        (replace(MANIFEST, format=1), "its format is 1"),
    ],
)
def test_one_that_contradicts_itself_is_refused(manifest: Manifest, message: str) -> None:
    with pytest.raises(CorruptObjectError, match=message):
        Manifest.from_json(manifest.to_json(), "here")


def test_segments_that_continue_each_other_are_joined() -> None:
    segments = [Segment(0, 0, 2), Segment(0, 2, 3), Segment(1, 0, 0), Segment(0, 5, 1), Segment(1, 0, 1)]
    assert merge_segments(segments) == (Segment(0, 0, 6), Segment(1, 0, 1))


@given(st.lists(st.builds(Segment, st.integers(0, 2), st.integers(0, 4), st.integers(0, 4))))
def test_joined_segments_are_the_same_rows_in_the_same_order(segments: list[Segment]) -> None:
    def rows(all_: list[Segment] | tuple[Segment, ...]) -> list[tuple[int, int]]:
        return [(each.part, each.first_row + row) for each in all_ for row in range(each.rows)]

    assert rows(merge_segments(segments)) == rows(segments)
