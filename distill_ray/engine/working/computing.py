"""Computes a batch's units, which are its rows where the step is row-wise; goes on without failed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from distill_ray.cache.rows import DIGEST_SIZE, row_digests
from distill_ray.cache.units import column_digests, row_keys
from distill_ray.engine.messages import BatchWork, FailedRows, Failure
from distill_ray.engine.working.calls import NOT_OF_THE_STEP, process_batch, process_rows
from distill_ray.engine.working.made import Made, Unit
from distill_ray.engine.working.retries import Retries
from distill_ray.engine.working.row_units import joined, shape_of
from distill_ray.engine.working.time_limit import TimeLimit
from distill_ray.errors import RowError, UndeclaredColumnError
from distill_ray.steps.base import Step, is_row_wise
from distill_ray.steps.declared import declared_columns, handed
from distill_ray.types import Batch, Row, RowFailure

_Outcome: TypeAlias = Unit | BaseException | None
"""What became of a row: what was made of it, why it failed, or None: not tried since another failed."""

_Afresh: TypeAlias = Callable[[], Sequence[Batch]]


@dataclass(frozen=True)
class Computing:
    """How a replica computes batches.

    Attributes:
        step: the loaded step.
        explain: puts what ``process`` raised into words; told which rows it was given, where that is known.
        limit: how long each call of ``process`` may take.
    """

    step: Step
    explain: Callable[[BaseException, tuple[int, int] | None], Failure]
    limit: TimeLimit

    def batch(self, made: Made, batch: BatchWork, inputs: Sequence[Batch], afresh: _Afresh) -> None:
        """Compute a batch's units, or say what failed.

        Of a row-wise step's batch with a row that ends the run, the rows that were made are taken in all the
        same: they are stored.

        Args:
            made: takes in what was computed.
            batch: the batch.
            inputs: its rows, of each predecessor.
            afresh: gives them once more: where ``process`` raised, it may have changed lists and dicts in
                those that it was given.

        Raises:
            OverdueError: ``process`` took too long; nothing of the batch is taken in.
        """
        compute = self._rows if is_row_wise(self.step) else self._whole
        retries = Retries(self.step)
        try:
            compute(made, batch, inputs, afresh, retries)
        except NOT_OF_THE_STEP:
            raise
        except BaseException as error:
            made.failure = self.explain(error, span_of([batch]))
        made.retried += retries.rows
        if made.failure is None:
            made.finish()

    def give_up(self, made: Made, batch: BatchWork, inputs: Sequence[Batch], reason: str) -> None:
        """Put what stands for failed rows in the place of a batch's, without calling the step."""
        if is_row_wise(self.step):
            _, wholes = keys_of(self.step, inputs)
            for place, (row, number) in enumerate(zip(inputs[0], batch.numbers, strict=True)):
                cut = slice(place * DIGEST_SIZE, (place + 1) * DIGEST_SIZE)
                made.add_failed(FailedRows(number, 1, reason), self._without([row]), wholes[cut])
        else:
            failed = FailedRows(batch.runs[0][0], batch.rows, reason)
            made.add_failed(failed, self._without(inputs[0]))
        made.finish()

    def _whole(
        self, made: Made, batch: BatchWork, inputs: Sequence[Batch], afresh: _Afresh, retries: Retries
    ) -> None:
        try:
            out = self.limit.call(lambda: process_batch(self.step, inputs))
            unit = Unit(out, row_digests(out))
        except NOT_OF_THE_STEP:
            raise
        except BaseException as error:
            raised = error
        else:
            made.add(unit, batch.key)
            return
        # Out here, so that what comes of another try does not show as raised while this was handled.
        if retries.again(raised, batch.rows):
            self._whole(made, batch, afresh(), afresh, retries)
            return
        if self.step.on_error == "raise":
            raise raised
        failed = self._failed(raised, batch.runs[0][0], batch.rows)
        made.add_failed(failed, self._without(afresh()[0]))

    def _rows(
        self, made: Made, batch: BatchWork, inputs: Sequence[Batch], afresh: _Afresh, retries: Retries
    ) -> None:
        keys, wholes = keys_of(self.step, inputs)
        outcomes = self._outcomes(inputs, afresh, retries)
        all_done = all(isinstance(outcome, Unit) for outcome in outcomes)
        given = inputs[0] if all_done else afresh()[0]
        for place, (number, outcome) in enumerate(zip(batch.numbers, outcomes, strict=True)):
            cut = slice(place * DIGEST_SIZE, (place + 1) * DIGEST_SIZE)
            if isinstance(outcome, Unit):
                made.add(outcome, keys[cut], wholes[cut])
            elif not self._ends_run(outcome):
                failed = self._failed(outcome or _untried(), number, 1)
                made.add_failed(failed, self._without([given[place]]), wholes[cut])
        made.failure = self._first_failure(batch.numbers, outcomes)

    def _ends_run(self, error: BaseException | None) -> bool:
        return self.step.on_error == "raise" or isinstance(error, UndeclaredColumnError)

    def _first_failure(self, numbers: Sequence[int], outcomes: Sequence[_Outcome]) -> Failure | None:
        """The first row that ends the run, with those after it that failed together with it."""
        for place, error in enumerate(outcomes):
            if isinstance(error, BaseException) and self._ends_run(error):
                end = place + 1
                while end < len(outcomes) and outcomes[end] is error and numbers[end] == numbers[end - 1] + 1:
                    end += 1
                return self.explain(error, (numbers[place], numbers[end - 1] + 1))
        return None

    def _outcomes(self, inputs: Sequence[Batch], afresh: _Afresh, retries: Retries) -> list[_Outcome]:
        """What becomes of each row; where the batch raises as a whole, each is tried by itself."""
        count = len(inputs[0])
        try:
            outcomes = self._at_once(*inputs)
        except (UndeclaredColumnError, *NOT_OF_THE_STEP):
            raise
        except BaseException as error:
            raised = error
        else:
            return self._with_second_tries(outcomes, afresh, retries)
        if retries.again(raised, count):  # out here, as in `_whole`
            return self._outcomes(afresh(), afresh, retries)
        if self.step.on_error == "raise":
            raise raised
        if count == 1:
            return [raised]
        alone = [_only(afresh, [place], count) for place in range(count)]
        return [outcome for row in alone for outcome in self._outcomes(row(), row, retries)]

    def _with_second_tries(
        self, outcomes: list[_Outcome], afresh: _Afresh, retries: Retries
    ) -> list[_Outcome]:
        """Try rows again that failed with what may pass, and those that were not tried because of them."""
        failed = [each for each in outcomes if isinstance(each, BaseException)]
        passing = [each for each in failed if self.step.may_pass(each)]
        if not passing or any(self._ends_run(each) for each in failed if each not in passing):
            return outcomes
        places = [place for place, each in enumerate(outcomes) if each is None or each in passing]
        if not retries.again(passing[0], len(places)):
            return outcomes
        again = _only(afresh, places, len(outcomes))
        try:
            second = self._outcomes(again(), again, retries)
        except NOT_OF_THE_STEP:
            raise
        except BaseException as error:  # what was made of the other rows is good
            second = [error] * len(places)
        for place, outcome in zip(places, second, strict=True):
            outcomes[place] = outcome
        return outcomes

    def _at_once(self, rows: Batch, *others: Batch) -> list[_Outcome]:
        declared = frozenset(declared_columns(self.step))
        given = [handed(rows, declared), *others]
        made = self.limit.call(lambda: process_rows(self.step, given))
        return [self._outcome(row, own, declared) for row, own in zip(rows, made, strict=True)]

    def _outcome(self, row: Row, own: list[Row] | RowFailure, declared: frozenset[str]) -> _Outcome:
        if isinstance(own, RowFailure):
            return own.error
        try:
            return self._unit(row, own, declared)
        except Exception as error:  # what was made of the other rows is good
            return error

    def _unit(self, row: Row, own: list[Row], declared: frozenset[str]) -> Unit:
        step = self.step
        limits = None if step.output_limit is None else step.limits_served(own)
        if not step.joins_input:
            return Unit(own, row_digests(own), limits=limits)
        out = [joined(row, each, declared) for each in own]
        return Unit(out, row_digests(out), [shape_of(each) for each in own], limits)

    def _without(self, rows: Batch) -> Unit:
        """What stands in the place of rows that could not be done."""
        if self.step.on_error == "skip":
            return Unit([], b"")
        nothing = dict.fromkeys(self.step.output_mappings.get(name, name) for name in self.step.outputs)
        copies = [row for row in rows for _ in range(self.step.null_rows)]
        joins = self.step.joins_input
        out = [{**row, **nothing} if joins else dict(nothing) for row in copies]
        shapes = [(tuple(nothing), None)] * len(out) if is_row_wise(self.step) and joins else ()
        limits = None if self.step.output_limit is None else (0, None)
        return Unit(out, row_digests(out), shapes, limits)

    def _failed(self, error: BaseException, first_row: int, rows: int) -> FailedRows:
        failure = self.explain(error, None)
        return FailedRows(first_row, rows, failure.message)


def _untried() -> RowError:
    return RowError(
        "process() yielded RowFailure(None): only where `on_error` is 'raise' may it try no more."
    )


def span_of(batches: Sequence[BatchWork]) -> tuple[int, int]:
    """Their first row in the step's input, and the one after their last; others may be between."""
    last, rows = batches[-1].runs[-1]
    return batches[0].runs[0][0], last + rows


def keys_of(step: Step, inputs: Sequence[Batch]) -> tuple[bytes, bytes]:
    """The keys of a row-wise step's rows, and those with all columns of the first predecessor's counted."""
    first, *others = inputs
    strides = step.strides[1:] or (1,) * len(others)
    further = [(row_digests(rows), stride) for rows, stride in zip(others, strides, strict=True)]
    return row_keys(column_digests(first, declared_columns(step)), further), row_keys(
        row_digests(first), further
    )


def _only(afresh: _Afresh, places: Sequence[int], count: int) -> _Afresh:
    """Gives some of the first predecessor's rows, with those of the others that belong to them."""

    def some() -> list[Batch]:
        shares = [_shared_out(each, count) for each in afresh()]
        return [[row for place in places for row in of_one[place]] for of_one in shares]

    return some


def _shared_out(rows: Batch, count: int) -> list[Batch]:
    """The same number of rows for each of ``count``."""
    stride = len(rows) // count
    return [rows[place * stride : (place + 1) * stride] for place in range(count)]
