"""Rows as users have them, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_CHARACTERS = st.characters(codec="utf-8", categories=None) | st.sampled_from('\ud800\udc00\udfff\x00\n"\\é☃')

texts = st.text(st.one_of(_CHARACTERS, st.characters()), max_size=8)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
integers = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**64), 2**65),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**80]),
)
floats = st.one_of(
    st.floats(), st.sampled_from([0.0, -0.0, 1.0, 1e15, 1e16, 1e22, 1e-5, 5e-324, float("nan"), float("inf")])
)
scalars = st.one_of(st.none(), st.booleans(), integers, floats, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)
# Few names, so that rows share columns; often one kind a column, so that native columns come up.
columns = st.sampled_from(["a", "b", "text", "", "a.b", "_no_columns", "列"])
kinds = st.sampled_from(
    [texts, integers, floats, st.booleans(), scalars, st.lists(texts), st.lists(floats), values]
)


@st.composite
def row_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of which some lack some keys."""
    schema = draw(st.dictionaries(columns, kinds, max_size=4))
    row = st.fixed_dictionaries({}, optional={name: st.none() | kind for name, kind in schema.items()})
    full = st.fixed_dictionaries(dict(schema))
    return draw(st.lists(draw(st.sampled_from([row, full])), max_size=6))


def same(one: Any, other: Any) -> bool:
    """Equal in value and type all the way down; NaN equals NaN, 0.0 is not -0.0, dicts keep their order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def same_rows(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """The same rows; the order of a row's own keys, which is that of the columns, left aside."""

    def by_key(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [dict(sorted(row.items())) for row in rows]

    return same(by_key(one), by_key(other))
