"""What became of rows is told from digests alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.rows import row_digests
from distill_ray.explain.row_changes import RowChanges, row_changes

texts = st.lists(st.sampled_from("abcdefgh"), max_size=12)


def compared(before: Any, now: Any) -> RowChanges:
    """Rows are letters here."""
    return row_changes(*(row_digests([{"t": text} for text in rows]) for rows in (before, now)))


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ("abc", "abc", "the same 3 rows"),
        ("abc", "abcde", "+2 of 3 rows"),
        ("abc", "xabc", "+1 of 3 rows"),
        ("abc", "ac", "-1 of 3 rows"),
        ("abc", "axc", "1 changed of 3 rows"),
        ("abc", "xyz", "3 changed of 3 rows"),
        ("abc", "axcde", "+2, 1 changed of 3 rows"),
        ("aa", "aaa", "+1 of 2 rows"),
        ("abcd", "bcda", "1 moved of 4 rows"),
        ("", "ab", "+2 of 0 rows"),
    ],
)
def test_changes_are_told_in_words(before: str, now: str, text: str) -> None:
    assert compared(before, now).text == text


def test_a_changed_row_is_named_with_its_number_before_and_now() -> None:
    assert compared("abcd", "xabyd").changed == ((2, 3),)
    assert compared("abcd", "xabyd").added == (0,)


@given(texts, texts)
def test_every_row_is_accounted_for_once(before: list[str], now: list[str]) -> None:
    found = compared(before, now)
    old = [*found.deleted, *(a for a, _ in found.changed)]
    new = [*found.added, *(b for _, b in found.changed)]
    assert len(set(old)) == len(old)
    assert len(set(new)) == len(new)
    # What is left is the same rows, in another order if any have moved.
    kept_before = [text for row, text in enumerate(before) if row not in old]
    kept_now = [text for row, text in enumerate(now) if row not in new]
    assert sorted(kept_before) == sorted(kept_now)
    assert (found.moved == 0) == (kept_before == kept_now)


@given(texts)
def test_rows_that_are_as_before_have_not_changed(rows: list[str]) -> None:
    assert compared(rows, rows) == RowChanges(len(rows), len(rows))


@given(texts, texts)
def test_appended_rows_are_all_there_is_to_say(rows: list[str], more: list[str]) -> None:
    found = compared(rows, rows + more)
    assert (found.deleted, found.changed, found.moved) == ((), (), 0)
    assert len(found.added) == len(more)
