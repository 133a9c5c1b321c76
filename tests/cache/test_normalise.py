"""What a row may hold, and the words in which the rest is refused."""

from __future__ import annotations

import datetime as dt
import decimal
from collections import OrderedDict
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given

from distill_ray.cache.normalise import normalise, plain_names, plain_rows
from distill_ray.errors import RowError
from tests.cache.json_rows import same, values


class Level(IntEnum):
    LOW = 1


class Nested(Enum):
    PAIR = (1, "a")


class Ratio(float):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: list[int]


PATH = (3, "x")


@given(values)
def test_json_like_values_stay_what_they_are(value: Any) -> None:
    assert same(normalise(value, PATH), value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, [2]), [1, [2]]),
        (OrderedDict(a=(1,)), {"a": [1]}),
        (Level.LOW, 1),
        (Nested.PAIR, [1, "a"]),
        (Ratio(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.str_("a"), "a"),
        (np.array([]), []),
        (np.array(["a", None], dtype=object), ["a", None]),
        (np.datetime64("2025-01-02"), "2025-01-02"),
        (dt.date(2025, 1, 2), "2025-01-02"),
        (dt.time(3, 4), "03:04:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
    ],
)
def test_other_values_become_json_like_ones(value: Any, plain: Any) -> None:
    assert same(normalise(value, PATH), plain)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"x", r"Row 3, `x`: a value of type bytes cannot be stored exactly; decode it to text"),
        ({1}, r"type set .* make it a list"),
        (2j, r"type complex .* two floats"),
        (decimal.Decimal(1), r"type Decimal .* make it text"),
        ([{"k": [None, b""]}], r"Row 3, `x\[0\]\.k\[1\]`"),
        ({2: 1}, r"the key 2 of type int cannot be stored exactly; make every key a str"),
        ({"\udc00": 1}, r"a lone surrogate"),
        (10**4001, r"more than 4,000 digits"),
        (np.longdouble(1), r"numpy"),
        (np.complex128(1), r"numpy"),
    ],
)
def test_a_refusal_says_where_what_and_what_to_do(value: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        normalise(value, PATH)


def test_a_list_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RowError, match="nested deeper than 256 levels"):
        normalise(loop, PATH)


def test_a_row_is_a_dict() -> None:
    rows: list[Any] = [{"a": 1}, ["a", 1]]
    with pytest.raises(RowError, match="Row 11 is of type list"):
        plain_rows(rows, first=10)
    assert [type(row) for row in plain_rows([OrderedDict(a=1)])] == [dict]


def test_a_column_is_named_by_text() -> None:
    assert list(plain_names([{"b": 1}, {"a": 1, "b": 2}])) == ["b", "a"]
    rows: list[Any] = [{"a": 1}, {1: 1}]
    with pytest.raises(RowError, match="Row 1: the key 1 of type int"):
        plain_names(rows)
