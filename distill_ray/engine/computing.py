"""Computes a batch's units, which are its rows where the step is row-wise; goes on without failed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill_ray.cache.rows import row_digests
from distill_ray.cache.units import column_digests, row_keys
from distill_ray.engine.calls import process_batch, process_rows
from distill_ray.engine.made import Made, Unit
from distill_ray.engine.messages import BatchWork, FailedRows, Failure
from distill_ray.engine.row_units import joined, shape_of
from distill_ray.errors import UndeclaredColumnError
from distill_ray.steps.base import Step, is_row_wise
from distill_ray.steps.declared import declared_columns, handed
from distill_ray.types import Batch, Row


@dataclass(frozen=True)
class Computing:
    """How a replica computes batches.

    Attributes:
        step: the loaded step.
        explain: puts what ``process`` raised into words.
    """

    step: Step
    explain: Callable[[BaseException], Failure]

    def batch(self, made: Made, batch: BatchWork, inputs: Sequence[Batch]) -> None:
        """Compute a batch's units.

        Raises:
            Exception: what ``process`` raised, where the step's ``on_error`` is ``"raise"``.
        """
        if is_row_wise(self.step):
            self._rows(made, batch, inputs)
        else:
            self._whole(made, batch, inputs)
        made.batches += 1

    def _whole(self, made: Made, batch: BatchWork, inputs: Sequence[Batch]) -> None:
        try:
            out = process_batch(self.step, inputs)
            unit = Unit(out, row_digests(out))
        except (Exception, SystemExit) as error:
            if self.step.on_error == "raise":
                raise
            failed = self._failed(error, batch.runs[0][0], batch.rows)
            made.add_failed(failed, self._without(inputs[0]))
        else:
            made.add(unit, batch.key)

    def _rows(self, made: Made, batch: BatchWork, inputs: Sequence[Batch]) -> None:
        first, *others = inputs
        keys, wholes = keys_of(self.step, inputs)
        found = self._units(first, others)
        for place, (number, unit) in enumerate(zip(batch.numbers, found, strict=True)):
            cut = slice(16 * place, 16 * place + 16)
            if isinstance(unit, Unit):
                made.add(unit, keys[cut], wholes[cut])
            else:
                failed = self._failed(unit, number, 1)
                made.add_failed(failed, self._without([first[place]]), wholes[cut])

    def _units(self, rows: Batch, others: Sequence[Batch]) -> list[Unit | BaseException]:
        """What becomes of each row; where the batch fails, each of its rows is tried by itself."""
        try:
            return list(self._all_units(rows, others))
        except UndeclaredColumnError:
            raise
        except (Exception, SystemExit) as error:
            if self.step.on_error == "raise":
                raise
            if len(rows) == 1:
                return [error]
        alone = zip(rows, *(_shared_out(each, len(rows)) for each in others), strict=True)
        return [unit for row, *shares in alone for unit in self._units([row], shares)]

    def _all_units(self, rows: Batch, others: Sequence[Batch]) -> list[Unit]:
        declared = frozenset(declared_columns(self.step))
        made = process_rows(self.step, [handed(rows, declared), *others])
        return [self._unit(row, own, declared) for row, own in zip(rows, made, strict=True)]

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
        failure = self.explain(error)
        return FailedRows(first_row, rows, failure.message, failure.trace)


def keys_of(step: Step, inputs: Sequence[Batch]) -> tuple[bytes, bytes]:
    """The keys of a row-wise step's rows, and those with all columns of the first predecessor's counted."""
    first, *others = inputs
    strides = step.strides[1:] or (1,) * len(others)
    further = [(row_digests(rows), stride) for rows, stride in zip(others, strides, strict=True)]
    return row_keys(column_digests(first, declared_columns(step)), further), row_keys(
        row_digests(first), further
    )


def _shared_out(rows: Batch, count: int) -> list[Batch]:
    """The same number of rows for each of ``count``."""
    stride = len(rows) // count
    return [rows[place * stride : (place + 1) * stride] for place in range(count)]
