"""Errors that may pass: a batch, or what of it failed, is tried again before `on_error` holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import decode_rows, encode_rows
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.writer import Block
from distill_ray.engine.messages import BatchWork, Range, Work, WorkRecord
from distill_ray.engine.working.worker import Worker, WorkerSetup
from distill_ray.errors import TransientError
from distill_ray.steps import RowFailure, Step, StepInput, StepOutput


class BusyError(Exception):
    """What a client library raises: it says itself when to come back."""

    headers: ClassVar[dict[str, str]] = {"retry-after": "0"}


class NowError(TransientError):
    headers: ClassVar[dict[str, str]] = {"retry-after": "0"}


class Flaky(Step):
    """Raises the error the first times that it meets the row."""

    transient_errors: ClassVar[tuple[type[Exception], ...]] = (BusyError,)

    at: int
    times: int
    error: type[Exception] = BusyError
    _met: Counter[int] = PrivateAttr(default_factory=Counter)

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            row["n"] += 100  # what it was given is spoilt for a second try
            self._meet(row["n"] - 100)
        yield [dict(row) for row in inputs]

    def _meet(self, n: int) -> None:
        self._met[n] += 1
        if n == self.at and self._met[n] <= self.times:
            raise self.error(f"busy at {n}")


class FlakyRows(Flaky):
    row_wise = True

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    def process(self, inputs: StepInput) -> Iterator[Any]:
        for place, row in enumerate(inputs):
            try:
                self._meet(row["n"])
            except Exception as error:
                yield RowFailure(error)
                if self.on_error == "raise":
                    yield from [RowFailure(None)] * (len(inputs) - place - 1)
                    return
            else:
                yield [{"n": row["n"] + 100}]


class RaisesAsAWhole(Flaky):
    row_wise = True

    @property
    def inputs(self) -> list[str]:
        return ["n"]


def computed(step: Step, store: CacheStore, rows: int = 4) -> tuple[list[int], WorkRecord]:
    """What comes of a batch of rows."""
    setup = WorkerSetup(step, FunctionId("Some", "0" * 64), {}, store.storage, "run")
    worker = Worker(setup, 0)
    given = Block(0, encode_rows([{"n": n} for n in range(rows)]), UnitIndex(b"", (), b"", "run"))
    work = Work(1, (BatchWork(((0, rows),)),), inputs=((Range(0, 0, rows),),), sources=(None,))
    block, record = worker.run(work, [given])
    worker.close()
    return [] if block is None else [row["n"] for row in decode_rows(block.table)], record


@pytest.mark.parametrize("error", [BusyError, NowError])
@pytest.mark.parametrize("kind", [Flaky, FlakyRows, RaisesAsAWhole])
def test_what_fails_and_passes_is_done_as_if_nothing_had_been(
    kind: type[Flaky], error: type[Exception], store: CacheStore
) -> None:
    rows, record = computed(kind(at=2, times=2, error=error), store)
    assert rows == [100, 101, 102, 103]
    assert (record.failure, record.failed) == (None, ())


def test_only_what_failed_or_was_not_tried_because_of_it_is_tried_again(
    store: CacheStore,
) -> None:
    skipping, stopping = FlakyRows(at=1, times=2, on_error="skip"), FlakyRows(at=1, times=2)
    rows, record = computed(skipping, store)
    assert (rows, record.rows_retried) == ([100, 101, 102, 103], 2)
    assert dict(skipping._met) == {0: 1, 1: 3, 2: 1, 3: 1}
    rows, record = computed(stopping, store)
    assert (rows, record.rows_retried) == ([100, 101, 102, 103], 6)
    assert dict(stopping._met) == {0: 1, 1: 3, 2: 1, 3: 1}


@pytest.mark.parametrize("kind", [FlakyRows, RaisesAsAWhole])
def test_a_row_that_fails_every_time_is_left_out_once_the_retries_are_used_up(
    kind: type[Flaky], store: CacheStore
) -> None:
    step = kind(at=2, times=99, on_error="skip", batch_retries=2)
    rows, record = computed(step, store)
    assert rows == [100, 101, 103]
    assert [(failed.first_row, failed.rows) for failed in record.failed] == [(2, 1)]
    assert "busy at 2" in record.failed[0].message
    assert step._met[2] == (3 if kind is FlakyRows else 4), "as often as is allowed; alone once more"


def test_rows_that_were_made_before_one_that_ends_the_run_are_kept(store: CacheStore) -> None:
    rows, record = computed(FlakyRows(at=2, times=99, batch_retries=1), store)
    assert rows == [100, 101]
    assert record.failure is not None
    assert record.failure.rows == (2, 3)
    assert "busy at 2" in record.failure.message


@pytest.mark.parametrize("kind", [Flaky, FlakyRows, RaisesAsAWhole])
def test_an_error_that_is_not_said_to_pass_is_not_tried_again(kind: type[Flaky], store: CacheStore) -> None:
    step = kind(at=2, times=1, error=ValueError)
    _, record = computed(step, store)
    assert record.failure is not None
    assert (step._met[2], record.rows_retried) == (1, 0)


def test_a_batch_that_is_no_row_wise_steps_fails_as_a_whole_after_its_retries(store: CacheStore) -> None:
    rows, record = computed(Flaky(at=2, times=99, batch_retries=1, on_error="skip"), store)
    assert (rows, record.rows_retried) == ([], 4)
    assert [(failed.first_row, failed.rows) for failed in record.failed] == [(0, 4)]


@pytest.mark.parametrize("kind", [Flaky, RaisesAsAWhole])
def test_the_traceback_of_the_last_try_shows_no_way_through_the_tries_before(
    kind: type[Flaky], store: CacheStore
) -> None:
    _, record = computed(kind(at=2, times=99, batch_retries=2), store)
    assert record.failure is not None
    assert "busy at 2" in record.failure.trace
    assert "During handling" not in record.failure.trace
    assert "computing.py" not in record.failure.trace
