"""Rows as units: which of a row-wise step's rows belong to which that it was given, and what is joined on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from distill_ray.cache.unit_index import Shape
from distill_ray.errors import RowError
from distill_ray.types import METADATA, Row


def attribute(yielded: Sequence[Sequence[Row]], given: Sequence[Row]) -> list[list[int]]:
    """Say which rows of what a row-wise step yielded belong to which of the rows that it was given.

    Returns:
        For each row given the numbers of its rows among all that were yielded.

    Raises:
        RowError: it cannot be told.
    """
    out = [row for rows in yielded for row in rows]
    places = {id(row): place for place, row in enumerate(given)}
    chosen = [places.get(id(row), -1) for row in out]
    if chosen == sorted(chosen) and chosen[:1] != [-1]:  # it only chose, or wrote into the rows themselves
        return [_numbers_of(chosen, place) for place in range(len(given))]
    found = _by_their_number(yielded, given)
    if found is None or any(chosen[n] not in (-1, place) for place, each in enumerate(found) for n in each):
        raise RowError(
            f"process() of a row-wise step yielded {len(out)} rows for {len(given)}, and it cannot be told "
            "which of them belong to which. Yield a list for each row (`for row in inputs: yield [...]`), or "
            "only dicts that it was given, in their order; or set `row_wise = False`."
        )
    return found


def _by_their_number(yielded: Sequence[Sequence[Row]], given: Sequence[Row]) -> list[list[int]] | None:
    ends = [0, *accumulate(len(rows) for rows in yielded)]
    if len(given) == 1:
        return [list(range(ends[-1]))]
    if len(yielded) == len(given):
        return [list(range(start, end)) for start, end in pairwise(ends)]
    return [[number] for number in range(ends[-1])] if ends[-1] == len(given) else None


def _numbers_of(chosen: Sequence[int], place: int) -> list[int]:
    return list(range(bisect_left(chosen, place), bisect_right(chosen, place)))


def shape_of(own: Row) -> Shape:
    """What the step itself gave: its columns and its metadata's keys."""
    return tuple(own), _metadata_keys(own.get(METADATA))


def joined(row: Row, own: Row, declared: Collection[str]) -> Row:
    """The output row: what the step gave, and the columns of the input row that it was not handed.

    Metadata of the steps above is kept beside the step's own.
    """
    out = {name: own.get(name, value) for name, value in row.items() if name in own or name not in declared}
    out.update(own)
    if METADATA in own and METADATA in row and METADATA not in declared:
        out[METADATA] = _with_metadata(row[METADATA], own[METADATA])
    return out


def own_part(out: Row, shape: Shape) -> Row:
    """What a step itself gave of a row that `joined` made."""
    columns, keys = shape
    own = {name: out[name] for name in columns}
    if METADATA in own and keys is not None:
        own[METADATA] = _only(own[METADATA], keys)
    return own


def _with_metadata(above: Any, own: Any) -> Any:
    if not isinstance(above, Mapping):
        return own
    if isinstance(own, list):  # of grouped generations, one for each
        return [_with_metadata(above, each) for each in own]
    return {**above, **own} if isinstance(own, Mapping) else own


def _metadata_keys(own: Any) -> tuple[str, ...] | None:
    if isinstance(own, list) and all(isinstance(each, Mapping) for each in own):
        return tuple(dict.fromkeys(key for each in own for key in each))
    return tuple(own) if isinstance(own, Mapping) else None


def _only(metadata: Any, keys: Sequence[str]) -> Any:
    if isinstance(metadata, list):
        return [_only(each, keys) for each in metadata]
    return {key: metadata[key] for key in keys if key in metadata}
