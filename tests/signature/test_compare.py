"""What changed is named field by field, as finely as can be told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.signature.compare import MISSING, Change, changes
from distill_ray.signature.encode import describe, digest

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2**70)
    | st.floats()
    | st.text(max_size=2)
    | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab$.", max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(values, values)
def test_there_is_a_change_where_the_digest_changed(old: Any, new: Any) -> None:
    before, now = (json.loads(json.dumps(describe(value))) for value in (old, new))
    assert (changes(before, now) == ()) == (digest(old) == digest(new))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ()),
        ({"a": 1}, {"a": True}, (Change("a", 1, True),)),
        ({"a": 1}, {"a": 1.0}, (Change("a", 1, 1.0),)),
        ({"a": 0.0}, {"a": -0.0}, (Change("a", 0.0, -0.0),)),
        ({"a": 1}, {}, (Change("a", 1, MISSING),)),
        ({}, {"a": None}, (Change("a", MISSING, None),)),
        ({"a": {"b": [1, 2, 3]}}, {"a": {"b": [1, 4, 3]}}, (Change("a.b[1]", 2, 4),)),
        ({"a": [1, 2]}, {"a": [1]}, (Change("a", [1, 2], [1]),)),
        ({"a b": {"c.d": 1}}, {"a b": {"c.d": 2}}, (Change("['a b']['c.d']", 1, 2),)),
        ({"llm": {"$model": {"top": 1}}}, {"llm": {"$model": {"top": 2}}}, (Change("llm.top", 1, 2),)),
        ({"a": {"$set": [1]}}, {"a": {"$bytes": ""}}, (Change("a", {"$set": [1]}, {"$bytes": ""}),)),
        (
            {"a": {"$long_str": [9, "d"]}},
            {"a": {"$long_str": [8, "d"]}},
            (Change("a", {"$long_str": [9, "d"]}, {"$long_str": [8, "d"]}),),
        ),
        ([1], {"a": 1}, (Change("", [1], {"a": 1}),)),
    ],
)
def test_the_smallest_parts_that_differ_are_named(old: Any, new: Any, expected: tuple[Change, ...]) -> None:
    assert repr(changes(old, new)) == repr(expected)


def test_a_change_knows_the_kinds_that_hold_it() -> None:
    (change,) = changes({"$step": {"llm": {"$model": {"a": 1}}}}, {"$step": {"llm": {"$model": {"a": 2}}}})
    assert (change.path, change.within) == ("llm.a", ("step", "model"))
