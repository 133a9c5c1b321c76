"""Counts the tokens that rows say a step's model read and wrote, in the column of metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill_ray.types import METADATA, Row


def metadata_tokens(step: str, rows: Sequence[Row]) -> tuple[int, int]:
    """Sum up what the rows' metadata holds under ``statistics_<step>``."""
    # The metadata of grouped generations is a list.
    metadata = [each for row in rows if METADATA in row for each in _as_list(row[METADATA])]
    counts = [each.get(f"statistics_{step}") for each in metadata if isinstance(each, dict)]
    return _total(counts, "input_tokens"), _total(counts, "output_tokens")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _total(counts: Sequence[Any], key: str) -> int:
    """The sum of numbers of tokens, or of lists of them; users may write anything there."""
    numbers = [n for count in counts if isinstance(count, dict) for n in _as_list(count.get(key))]
    return sum(number for number in numbers if isinstance(number, int))
