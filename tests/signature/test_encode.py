"""Encodings are unambiguous: different values never share one, equal values always do."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.errors import SignatureError
from distill_ray.signature.encode import LONG_LIST, Encoding, describe, digest, encode
from distill_ray.signature.stand_in import Tagged, encode_value

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-3, max_value=3)
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1.0])
    | st.text(max_size=4)
    | st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=3)
    | st.binary(max_size=3)
    | st.sampled_from(["", "$", "$set", "a", "a-b", "nan", "1", "None", "[]"])
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.sets(hashables, max_size=3)
        | st.dictionaries(
            st.text(max_size=3) | st.sampled_from(["$set", "$dict", "$bytes"]), inner, max_size=4
        )
        | st.dictionaries(hashables, inner, max_size=3)
    ),
    max_leaves=12,
)


def canonical(value: Any) -> Any:
    """What makes a value what it is, in terms whose equality Python decides by type and content."""
    if isinstance(value, list | tuple):
        return ("list", tuple(canonical(item) for item in value))
    if isinstance(value, set | frozenset):
        return ("set", frozenset(canonical(item) for item in value))
    if isinstance(value, dict):
        return ("dict", frozenset((canonical(key), canonical(item)) for key, item in value.items()))
    return (type(value), repr(value))


def shuffled(value: Any) -> Any:
    """The same value with its dicts in the opposite order, and tuples in place of lists."""
    if isinstance(value, list | tuple):
        return tuple(shuffled(item) for item in value)
    if isinstance(value, dict):
        return {shuffled(key): shuffled(value[key]) for key in reversed(list(value))}
    return value


@settings(max_examples=500)
@given(trees, trees)
def test_two_values_share_a_digest_only_if_they_are_the_same(one: Any, other: Any) -> None:
    same = canonical(one) == canonical(other)
    assert (encode(one) == encode(other)) == same
    assert (digest(one) == digest(other)) == same
    assert (json.dumps(describe(one)) == json.dumps(describe(other))) == same


@given(trees)
def test_the_order_of_a_dict_and_the_kind_of_a_sequence_change_nothing(value: Any) -> None:
    assert encode(shuffled(value)) == encode(value)
    assert json.dumps(describe(shuffled(value))) == json.dumps(describe(value))


@given(st.lists(trees, min_size=2, max_size=5), st.data())
def test_one_changed_item_changes_the_digest(items: list[Any], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(items) - 1))
    other = data.draw(trees.filter(lambda value: canonical(value) != canonical(items[index])))
    changed = [*items[:index], other, *items[index + 1 :]]
    assert digest(changed) != digest(items)


@given(trees)
def test_what_is_described_survives_json(value: Any) -> None:
    described = describe(value)
    assert json.loads(json.dumps(described, allow_nan=False)) == described


class Color(Enum):
    RED = "red"


class Marked(str):
    __slots__ = ()


DIFFERENT: list[Any] = [
    *(
        None,
        False,
        True,
        0,
        1,
        -1,
        255,
        256,
        0.0,
        -0.0,
        1.0,
        float("inf"),
        2**70,
        "",
        "1",
        "None",
        "True",
        b"",
        b"1",
    ),
    *(
        [],
        {},
        set(),
        [""],
        ["a", "b"],
        ["a-b"],
        ["a,b"],
        [["a"], "b"],
        [["a", "b"]],
        [None],
        {"a": None},
        {"a": 1},
    ),
    *(
        {"a": 1.0},
        {"a": True},
        {"a": {"b": 1}},
        {"b": {"a": 1}},
        {1: "a"},
        {"1": "a"},
        {True: "a"},
        {1.0: "a"},
    ),
    *(
        {"a"},
        {("a",)},
        "a",
        Marked("a"),
        Color.RED,
        "red",
        "RED",
        {"$set": ["a"]},
        {"$dict": [["a", 1]]},
        "$set",
    ),
    *(dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), "2024-01-01", dt.time(0), dt.timedelta(0)),  # noqa: DTZ001
    *(
        dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
        dt.timedelta(days=1),
        Decimal(1),
        Decimal("1.0"),
        1 + 0j,
    ),
    *(
        PurePosixPath("a"),
        re.compile("a"),
        re.compile("a", re.IGNORECASE),
        re.compile(b"a"),
        range(3),
        [0, 1, 2],
    ),
    *(int, str, ..., "\ud83d\ude00", "\U0001f600", list(range(LONG_LIST)), list(range(LONG_LIST + 1))),
    *([list(range(200))], list(range(200)), "x" * 20_000, "x" * 20_001, b"x" * 2_000, bytearray(b"1")),
]


def test_values_that_look_alike_differ() -> None:
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)
    assert len({json.dumps(describe(value)) for value in DIFFERENT}) == len(DIFFERENT)


def test_nan_is_one_value() -> None:
    assert digest(float("nan")) == digest(-float("nan"))
    assert digest(float("nan")) not in {digest(None), digest("nan")}


def test_a_dict_is_a_dict_whatever_made_it() -> None:
    assert digest(OrderedDict(b=1, a=2)) == digest({"a": 2, "b": 1})
    assert digest(defaultdict(None, b=1, a=2)) == digest({"a": 2, "b": 1})


def test_what_a_dict_gives_for_other_keys_counts() -> None:
    made: list[dict[str, Any]] = [
        defaultdict(int, a=1),
        defaultdict(list, a=1),
        defaultdict(int, a=2),
        {"a": 1},
    ]
    assert len({digest(each) for each in made}) == len(made)
    assert describe(made[0]) == {"$defaultdict": [{"$type": "builtins.int"}, {"a": 1}]}


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (Opaque(), "llm: a "),
        ([1, Opaque()], r"llm\[1\]: "),
        ({"stop": [[], [0, Opaque()]]}, r"llm\.stop\[1\]\[1\]: "),
        ({"a key": Opaque()}, r"llm\['a key'\]: "),
        ({1: {2: Opaque()}}, r"llm\[1\]\[2\]: "),
        ([0] * 150 + [Opaque()], r"llm\[150\]: "),
        ({Opaque(): 1}, r"llm\[<"),
    ],
)
def test_a_value_without_encoding_is_an_error_that_says_where_and_what_to_do(value: Any, where: str) -> None:
    for walk in (encode, digest, describe):
        if walk is describe and isinstance(value, list) and len(value) > LONG_LIST:
            continue
        with pytest.raises(SignatureError, match=f"^{where}.*Opaque.*Register an encoder|^llm.*Opaque"):
            walk(value, path="llm")


def test_a_value_that_holds_itself_is_an_error() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(SignatureError, match="the value contains itself, or is nested too deeply"):
        digest(value)


class Degrees:
    def __init__(self, value: float) -> None:
        self.value = value


@pytest.fixture
def registered() -> Iterator[None]:
    encode_value.register(Degrees, lambda value: value.value)
    yield
    encode_value.register(Degrees, encode_value.dispatch(object))


@pytest.mark.usefixtures("registered")
def test_users_register_types_of_theirs() -> None:
    assert digest(Degrees(1.0)) == digest(Degrees(1.0))
    assert len({digest(value) for value in (Degrees(1.0), Degrees(2.0), 1.0)}) == 3


def test_a_stand_in_may_be_given_for_one_encoding() -> None:
    encoding = Encoding(lambda value: Tagged("opaque", type(value).__name__))
    assert encoding.describe([Opaque()]) == [{"$opaque": "Opaque"}]
    assert encoding.digest(Opaque()) == digest(Tagged("opaque", "Opaque"))


def test_long_data_is_described_by_its_length_and_digest() -> None:
    rows = [{"n": n} for n in range(5_000)]
    described = describe({"data": rows, "text": "x" * 20_000, "few": ["y" * 9_000, "z" * 9_000]})
    assert len(json.dumps(described)) < 500
    assert described["data"]["$long_list"][0] == 5_000
    assert described["text"]["$long_str"][0] == 20_000
    assert described["few"]["$long_list"][0] == 2


def test_a_million_small_rows_take_seconds() -> None:
    rows = [{"instruction": f"How much is {n} + 2?", "n": n} for n in range(100_000)]
    start = time.process_time()
    digest(rows)
    assert time.process_time() - start < 1.5  # 0.2 s when nothing else runs
