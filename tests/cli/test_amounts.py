"""Amounts are read as people write them, and written as they read them."""

from __future__ import annotations

import click
import pytest

from distill_ray.cache.stock import Cost
from distill_ray.cli.amounts import (
    Duration,
    Size,
    bytes_text,
    cost_text,
    count_text,
    day_text,
    seconds_text,
    shown,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("500GB", 500 * 10**9), ("1.5TiB", 3 * 2**39), ("10 kb", 10_000), ("7B", 7)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("45s", 45), ("10m", 600), ("12h", 43_200), ("30d", 2_592_000), ("1.5 w", 907_200)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "-1", "GB", "5XB", "five"])
def test_what_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(click.BadParameter, match="500GB"):
        Size().convert(text, None, None)


@pytest.mark.parametrize("text", ["", "30", "-1d", "d", "5y", "5M"])
def test_a_duration_needs_its_unit(text: str) -> None:
    with pytest.raises(click.BadParameter, match="30d"):
        Duration().convert(text, None, None)


def test_amounts_are_written_with_few_digits() -> None:
    assert [bytes_text(size) for size in (0, 999, 1000, 12_345_678, 10**15, 10**19)] == [
        "0 B", "999 B", "1.0 KB", "12.3 MB", "1.0 PB", "10,000.0 PB",
    ]  # fmt: skip
    assert [seconds_text(each) for each in (0.04, 119, 120, 7200, 2 * 86_400)] == [
        "0.0 s", "119.0 s", "2.0 min", "2.0 h", "2.0 d",
    ]  # fmt: skip
    assert count_text(1, "part") == "1 part"
    assert count_text(1200, "part") == "1,200 parts"
    assert cost_text(Cost(60)) == "60.0 s of computing"
    assert cost_text(Cost(7200, 1000, 5)) == ("2.0 h of computing, 1,000 tokens read and 5 written by models")


def test_the_day_of_a_run_is_in_its_id() -> None:
    assert day_text("20260102T030405-0123abcd") == "2026-01-02 03:04"
    assert day_text("some run") == "-"


def test_what_steers_a_terminal_is_not_shown() -> None:
    assert shown("a\x1b[2Jb\nü") == "a?[2Jb?ü"
