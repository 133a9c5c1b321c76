"""Calling a step's ``process``, and holding it to what it must yield."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distill_ray.engine.working.row_units import attribute
from distill_ray.engine.working.time_limit import OverdueError
from distill_ray.errors import ProcessUnusableError, RowError
from distill_ray.steps.base import GeneratorStep, Step
from distill_ray.steps.declared import declared_rows
from distill_ray.steps.mappings import to_pipeline_names, to_step_names
from distill_ray.types import Batch, Row, RowFailure

NOT_OF_THE_STEP = (KeyboardInterrupt, GeneratorExit, OverdueError, ProcessUnusableError)
"""What comes out of a step and is no failure of it; all else is, whether it is an ``Exception`` or not.

Panics of libraries that are written in Rust are none, nor is ``asyncio.CancelledError``.
"""


def process_batch(step: Step, inputs: Sequence[Batch]) -> list[Row]:
    """Give what a step makes of a batch, one list of rows for each predecessor."""
    given = [to_step_names(batch, step.input_mappings) for batch in inputs]
    out = [row for _, copies in _yields(step.process(*given)) for row in copies]
    return to_pipeline_names(out, step.input_mappings, step.output_mappings)


def process_rows(step: Step, inputs: Sequence[Batch]) -> list[list[Row] | RowFailure]:
    """Give what a row-wise step makes of each row of its first predecessor, of which it is handed a part.

    Its mappings and its declared columns are of these rows; the others' it is handed as they are.

    Raises:
        RowError: it cannot be told what belongs to which row.
    """
    first, *others = inputs
    given = [declared_rows(to_step_names(first, step.input_mappings), frozenset(step.inputs)), *others]
    failures: dict[int, RowFailure] = {}
    yielded = list(_yields(_without_failures(step.process(*given), failures)))
    if failures and len(yielded) != len(first):
        raise RowError(
            f"process() yielded {len(yielded)} times for {len(first)} rows, with RowFailure among it: it "
            "cannot be told which of them failed. Yield a list or a RowFailure for each row."
        )
    places = attribute([rows for rows, _ in yielded], given[0])
    out = [row for _, copies in yielded for row in copies]
    named = to_pipeline_names(out, step.input_mappings, step.output_mappings)
    return [
        failures.get(place) or [named[number] for number in numbers] for place, numbers in enumerate(places)
    ]


def _without_failures(result: Any, failures: dict[int, RowFailure]) -> Iterator[Any]:
    """What ``process`` yields, with an empty list for each row that failed; ``failures`` takes in why."""
    for place, each in enumerate(_yielded(result)):
        if isinstance(each, RowFailure):
            failures[place] = each
        yield [] if place in failures else each


def _yields(result: Any) -> Iterator[tuple[list[Row], list[Row]]]:
    """Each list that ``process`` yields, and its rows as they are now: it may go on to change them."""
    for rows in _yielded(result):
        _check_rows(rows)
        yield rows, list(map(dict, rows))


def generate_rows(step: GeneratorStep, offset: int) -> Iterator[tuple[list[Row], bool]]:
    """Give ``(rows, last)`` as a generator step yields them; ``([], True)`` when it ends without a word."""
    for pair in _yielded(step.process(offset=offset)):
        rows, last = _check_pair(pair)
        yield to_pipeline_names(list(map(dict, rows)), {}, step.output_mappings), last
    yield [], True


def _yielded(result: Any) -> Iterator[Any]:
    if isinstance(result, Iterator):
        return result
    raise RowError(
        f"process() must yield what it makes, but it returned {result!r:.200}: use `yield`, in a plain `def`."
    )


def _check_rows(rows: Any) -> None:
    if isinstance(rows, list) and all(issubclass(kind, dict) for kind in set(map(type, rows))):
        return
    remedy = ": a single row is `yield [row]`" if isinstance(rows, dict) else ""
    if isinstance(rows, RowFailure):
        remedy = ": only a step with `row_wise = True` can tell which of its rows failed"
    raise RowError(
        f"process() must yield lists of dicts, but it yielded {type(rows).__name__}: {rows!r:.200}{remedy}."
    )


def _check_pair(pair: Any) -> tuple[list[Row], bool]:
    """What a generator step yields."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise RowError(
            f"process() of a generator step must yield (rows, last), but it yielded {pair!r:.200}."
        )
    rows, last = pair
    _check_rows(rows)
    return rows, bool(last)
