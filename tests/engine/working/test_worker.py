"""A replica by itself, with a real store: it reads, computes, writes, and never raises for a user's error."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field, PrivateAttr, SecretStr

from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import decode_rows, encode_rows, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import NO_UNIT, UnitIndex
from distill_ray.cache.units import end_key, offset_key
from distill_ray.cache.writer import Block
from distill_ray.engine.messages import BatchWork, Range, StoredPart, Work
from distill_ray.engine.working.worker import Worker, WorkerSetup
from distill_ray.errors import ProcessUnusableError, UndeclaredColumnError
from distill_ray.steps import GeneratorStep, GeneratorStepOutput, RowFailure, Step, StepInput, StepOutput
from distill_ray.steps.base import BaseStep

FUNCTION = FunctionId("Some", "0" * 64)
SOURCE = FunctionId("Source", "1" * 64)


class AddOne(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield [{"n": row["n"] + 1} for row in inputs]


class Count(GeneratorStep):
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, 10, 4):
            yield [{"n": n} for n in range(start, min(10, start + 4))], start + 4 >= 10


class GivesFailure(Step):
    def process(self, inputs: StepInput) -> Iterator[Any]:
        yield RowFailure(ValueError())


@pytest.fixture
def make(store: CacheStore) -> Iterator[Any]:
    made: list[Worker] = []

    def make_worker(step: BaseStep) -> Worker:
        worker = Worker(WorkerSetup(step, FUNCTION, {"source": SOURCE}, store.storage, "run"), 0)
        made.append(worker)
        assert worker.load() is None
        return worker

    yield make_worker
    for worker in made:
        worker.close()


def rows(first: int, end: int) -> list[dict[str, Any]]:
    return [{"n": n} for n in range(first, end)]


def in_memory(rows: list[dict[str, Any]]) -> Block:
    """Rows that another replica made, as they are handed over."""
    return Block(0, encode_rows(rows), UnitIndex(b"", (), b"", "run"))


def work(*sizes: int, **fields: Any) -> Work:
    batches, first = [], 0
    for number, size in enumerate(sizes):
        batches.append(BatchWork(((first, size),), bytes([number]) * 16))
        first += size
    given = {"inputs": ((Range(0, 0, first),),), "sources": (None,), **fields}
    return Work(block=1, batches=tuple(batches), **given)


def test_each_batch_of_a_call_is_a_unit(make: Any, store: CacheStore) -> None:
    worker = make(AddOne(name="add"))
    block, record = worker.run(work(3, 2), [in_memory(rows(0, 5))])
    assert decode_rows(block.table) == rows(1, 6)
    assert record.counts == (3, 2)
    assert record.digests == row_digests(rows(1, 6))
    (part,), failure = worker.flush()
    assert failure is None
    stored, index = store.read_part(FUNCTION, part.entry.name)
    assert decode_rows(stored) == rows(1, 6)
    assert [(key, count) for key, _, count in index.units] == [(bytes(16), 3), (bytes([1]) * 16, 2)]


def test_rows_are_read_from_a_part_where_the_call_says_so(make: Any, store: CacheStore) -> None:
    source = Worker(WorkerSetup(AddOne(name="source"), SOURCE, {}, store.storage, "run"), 0)
    source.run(work(5), [in_memory(rows(0, 5))])
    (part,), _ = source.flush()
    source.close()
    call = work(2, inputs=((Range(0, 3, 2),),), sources=(StoredPart("source", part.entry.name),))
    block, record = make(AddOne(name="add")).run(call, [])
    assert record.failure is None
    assert decode_rows(block.table) == rows(5, 7)


def test_batches_before_one_that_raises_are_kept(make: Any) -> None:
    class Picky(AddOne):
        def process(self, inputs: StepInput) -> StepOutput:
            if any(row["n"] == 4 for row in inputs):
                raise ValueError("four!")
            yield inputs

    block, record = make(Picky(name="picky")).run(work(2, 2, 2), [in_memory(rows(0, 6))])
    assert record.counts == (2, 2)
    assert block.table.num_rows == 4
    assert record.failure is not None
    assert record.failure.rows == (4, 6)
    assert "ValueError: four!" in record.failure.message
    assert 'raise ValueError("four!")' in record.failure.trace


class Halves(Step):
    """Gives half of even numbers, and of odd ones why it cannot; what it was given is in ``given``."""

    row_wise = True
    _given: list[int] = PrivateAttr(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["half"]

    def process(self, inputs: StepInput) -> Iterator[Any]:
        self._given += [row["n"] for row in inputs]
        for row in inputs:
            yield RowFailure(ValueError(f"{row['n']} is odd")) if row["n"] % 2 else [{"half": row["n"] // 2}]


def stored_halves(worker: Worker, store: CacheStore) -> list[Any]:
    """What the next run would find."""
    (part,), _ = worker.flush()
    table, index = store.read_part(FUNCTION, part.entry.name)
    halves = [row["half"] for row in decode_rows(table)]
    return [
        half for key, first, rows in index.units if key != NO_UNIT for half in halves[first : first + rows]
    ]


def test_rows_beside_one_that_ends_the_run_are_stored_but_are_no_output(make: Any, store: CacheStore) -> None:
    worker = make(step := Halves(name="halves"))
    numbers = [{"n": n} for n in (0, 2, 4, 5, 6, 7)]
    _, record = worker.run(work(2, 3, 1), [in_memory(numbers)])
    assert (record.batches, record.counts) == (1, (1, 1))
    assert len(record.digests) == 2 * 16
    assert record.failure.message == "process() raised ValueError: 5 is odd"
    assert record.failure.rows == (3, 4)
    assert record.failed == ()
    assert step._given == [0, 2, 4, 5, 6], "the batch after it is not begun"
    assert stored_halves(worker, store) == [0, 1, 2, 3]


@pytest.mark.parametrize(("on_error", "halves"), [("skip", [0, 1, 2]), ("null", [0, None, 1, None, 2])])
def test_rows_that_fail_by_themselves_are_gone_on_without_and_nothing_is_tried_twice(
    make: Any, store: CacheStore, on_error: Any, halves: list[Any]
) -> None:
    worker = make(step := Halves(name="halves", on_error=on_error))
    block, record = worker.run(work(3, 2), [in_memory(rows(0, 5))])
    assert [row["half"] for row in decode_rows(block.table)] == halves
    assert record.failure is None
    assert sum(record.counts) == len(halves)
    assert [(failed.first_row, failed.rows, failed.message) for failed in record.failed] == [
        (row, 1, f"process() raised ValueError: {row} is odd") for row in (1, 3)
    ]
    assert step._given == [0, 1, 2, 3, 4]
    assert stored_halves(worker, store) == [0, 1, 2]


def yields(*made: Any, **fields: Any) -> Step:
    class Yields(Halves):
        def process(self, inputs: StepInput) -> Iterator[Any]:
            yield from made

    return Yields(name="yields", **fields)


def test_rows_that_failed_together_are_named_together_and_not_those_that_were_not_tried(make: Any) -> None:
    error = ValueError("the server is down")
    step = yields(RowFailure(None), RowFailure(error), RowFailure(error), [], RowFailure(error))
    _, record = make(step).run(work(5), [in_memory(rows(0, 5))])
    assert record.failure.rows == (1, 3)
    assert record.counts == ()


def test_a_row_that_cannot_be_stored_fails_by_itself(make: Any, store: CacheStore) -> None:
    worker = make(yields([{"half": 1}], [{"half": b"raw"}], [{"half": 3}]))
    _, record = worker.run(work(3), [in_memory(rows(0, 3))])
    assert record.failure.rows == (1, 2)
    assert "`half`" in record.failure.message
    assert stored_halves(worker, store) == [1, 3]


class Signs(Step):
    """Writes into the list it was given; cannot do 3."""

    row_wise = True

    @property
    def inputs(self) -> list[str]:
        return ["n", "names"]

    @property
    def outputs(self) -> list[str]:
        return ["signed"]

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            row["names"].append("me")
            if row["n"] == 3:
                raise ValueError("three!")
            yield [{**row, "signed": True}]


class SignsAll(Signs):
    row_wise = False


@pytest.mark.parametrize(
    ("step", "signed", "failed"), [(Signs, [0, 1, 2, 4], [3]), (SignsAll, [0, 1], [2, 3, 4])]
)
def test_what_a_step_wrote_into_rows_before_it_raised_is_gone(
    make: Any, step: type[Step], signed: list[int], failed: list[int]
) -> None:
    given = in_memory([{"n": n, "names": [str(n)]} for n in (1, 2, 3, 4, 0)])
    ranges = (Range(0, 4, 1), Range(0, 0, 1), Range(0, 1, 3))
    made, _ = make(step(name="signs", on_error="null")).run(work(2, 3, inputs=(ranges,)), [given])
    assert decode_rows(made.table) == [
        {
            "n": n,
            "names": [str(n), "me"] if n in signed else [str(n)],
            "signed": True if n in signed else None,
        }
        for n in sorted([*signed, *failed])
    ]


def test_rows_that_a_step_gives_back_in_another_order_are_refused(make: Any) -> None:
    class Backwards(Halves):
        def process(self, inputs: StepInput) -> Iterator[Any]:
            yield inputs[::-1]

    _, record = make(Backwards(name="backwards")).run(work(2), [in_memory(rows(0, 2))])
    assert (
        "yielded 2 rows for 2, and it cannot be told which of them belong to which" in record.failure.message
    )


def test_an_undeclared_column_ends_the_run_whatever_is_to_become_of_failed_rows(make: Any) -> None:
    step = yields([{"half": 1}], RowFailure(UndeclaredColumnError("it reads `other`")), on_error="skip")
    _, record = make(step).run(work(2), [in_memory(rows(0, 2))])
    assert record.failure.rows == (1, 2)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (yields(RowFailure(ValueError()), []), r"yielded 2 times for 3 rows, with RowFailure among it"),
        (yields([], RowFailure(None), [], on_error="skip"), r"only where `on_error` is 'raise'"),
        (GivesFailure(name="whole"), "only a step with `row_wise = True` can tell which of its rows failed"),
    ],
)
def test_a_failure_in_the_wrong_place_is_told(make: Any, step: Step, message: str) -> None:
    _, record = make(step).run(work(3), [in_memory(rows(0, 3))])
    told = [record.failure.message] if record.failure else [failed.message for failed in record.failed]
    assert re.search(message, told[0])


def test_a_row_that_cannot_be_stored_exactly_is_a_failure_that_names_it(make: Any) -> None:
    class Bytes(AddOne):
        def process(self, inputs: StepInput) -> StepOutput:
            yield [{"raw": b"\x00"} for _ in inputs]

    _, record = make(Bytes(name="raw")).run(work(2), [in_memory(rows(0, 2))])
    assert record.counts == ()
    assert "`raw`" in record.failure.message
    assert "decode it to text" in record.failure.message


def test_a_missing_input_is_a_failure_and_not_a_row(make: Any) -> None:
    call = work(2, sources=(StoredPart("source", "no-such-part"),))
    _, record = make(AddOne(name="add")).run(call, [])
    assert record.counts == ()
    assert "its input could not be read" in record.failure.message
    assert record.failure.rows == (0, 2)


def test_a_generator_leaves_a_unit_for_each_batch_and_one_for_its_end(make: Any, store: CacheStore) -> None:
    worker = make(Count(name="count"))
    block, record = worker.run(Work(block=1, offset=2), [])
    assert decode_rows(block.table) == rows(2, 10)
    assert record.counts == (4, 4)
    assert record.last
    (part,), _ = worker.flush()
    _, index = store.read_part(FUNCTION, part.entry.name)
    assert [key for key, _, _ in index.units] == [offset_key(2), offset_key(6), end_key(10)]


def test_a_generator_goes_on_from_call_to_call(make: Any) -> None:
    worker = make(Count(name="count"))
    first, record = worker.run(Work(block=1, max_batches=1), [])
    second, rest = worker.run(Work(block=2), [])
    assert decode_rows(first.table) + decode_rows(second.table) == rows(0, 10)
    assert not record.last
    assert rest.last


def test_what_load_raises_comes_back_as_text(store: CacheStore) -> None:
    class Heavy(AddOne):
        def load(self) -> None:
            raise MemoryError("too large")

    worker = Worker(WorkerSetup(Heavy(name="heavy"), FUNCTION, {}, store.storage, "run"), 0)
    failure = worker.load()
    assert failure is not None
    assert failure.message == "load() raised MemoryError: too large"
    worker.close()


@pytest.mark.parametrize("kind", [OSError, SystemExit])
def test_an_error_in_unload_is_logged_and_does_no_harm(
    kind: type[BaseException], store: CacheStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Clingy(AddOne):
        def unload(self) -> None:
            raise kind("still busy")

    Worker(WorkerSetup(Clingy(name="clingy"), FUNCTION, {}, store.storage, "run"), 0).close()
    assert "'clingy'" in caplog.text
    assert "still busy" in caplog.text


def test_tokens_are_counted_from_what_tasks_record(make: Any) -> None:
    class Asks(AddOne):
        def process(self, inputs: StepInput) -> StepOutput:
            counts = {"input_tokens": 5, "output_tokens": 7}
            yield [{"n": 1, "distilabel_metadata": {"statistics_asks": counts}} for _ in inputs]

    _, record = make(Asks(name="asks")).run(work(2), [in_memory(rows(0, 2))])
    assert (record.input_tokens, record.output_tokens) == (10, 14)


class Reuses(GeneratorStep):
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        row: dict[str, Any] = {}
        for n in range(offset, 5):
            row["n"] = n
            yield [row], n == 4


class EachStyle(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        for style in ("plain", "rhymed"):
            for row in inputs:
                row["style"] = style
            yield inputs


def test_rows_are_taken_as_they_were_yielded_whatever_the_step_makes_of_them_after(make: Any) -> None:
    block, _ = make(Reuses(name="reuses")).run(Work(block=1), [])
    assert decode_rows(block.table) == rows(0, 5)
    block, _ = make(EachStyle(name="styles")).run(work(2), [in_memory(rows(0, 2))])
    assert [row["style"] for row in decode_rows(block.table)] == ["plain"] * 2 + ["rhymed"] * 2


class Talks(Step):
    key: SecretStr
    headers: list[dict[str, SecretStr]] = Field(default_factory=list)

    def process(self, inputs: StepInput) -> StepOutput:
        header = self.headers[0]["x-token"].get_secret_value()
        raise ValueError(f"{inputs[0]['text']}: 401 for {self.key.get_secret_value()!r} and {header}")
        yield inputs


def test_what_a_step_raised_is_told_without_its_secrets_and_in_characters_that_files_hold(make: Any) -> None:
    step = Talks(name="talks", key=SecretStr("hidden'1"), headers=[{"x-token": SecretStr("hidden-2")}])
    _, record = make(step).run(work(1), [in_memory([{"text": "lone \ud800"}])])
    failure = record.failure
    assert failure.message == (
        r"process() raised ValueError: lone \ud800: 401 for " + '"**********" and **********'
    )
    assert "hidden" not in failure.trace
    failure.trace.encode()


def gives(made: Any) -> Any:
    class Gives(AddOne):
        def process(self, inputs: StepInput) -> Any:
            return made

    return Gives(name="gives")


def generates(made: Any) -> Any:
    class Generates(Count):
        def process(self, offset: int = 0) -> Any:
            return made

    return Generates(name="gives")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (gives(None), "must yield what it makes, but it returned None: use `yield`"),
        (gives([{"n": 1}]), r"must yield what it makes, but it returned \[\{'n': 1\}\]: use `yield`"),
        (gives(iter([{"n": 1}])), r"yielded dict: \{'n': 1\}: a single row is `yield \[row\]`"),
        (gives(iter([({"n": 1},)])), "must yield lists of dicts, but it yielded tuple"),
        (generates(None), "must yield what it makes, but it returned None"),
        (generates(([{"n": 1}], True)), "must yield what it makes, but it returned"),
        (generates(iter([[{"n": 1}, {"n": 2}]])), r"must yield \(rows, last\), but it yielded \[\{'n': 1\}"),
        (generates(iter([({"n": 1}, True)])), "must yield lists of dicts, but it yielded dict"),
    ],
)
def test_what_process_gives_in_place_of_rows_is_told_without_our_code(
    make: Any, step: BaseStep, message: str
) -> None:
    call = Work(block=1) if isinstance(step, GeneratorStep) else work(1)
    _, record = make(step).run(call, [in_memory(rows(0, 1))])
    assert re.match(r"process\(\) ", record.failure.message)
    assert re.search(message, record.failure.message)
    assert record.failure.trace == ""


def test_a_step_that_exits_has_failed(make: Any) -> None:
    class Exits(AddOne):
        def process(self, inputs: StepInput) -> StepOutput:
            sys.exit(3)
            yield inputs

    class Ends(Count):
        def process(self, offset: int = 0) -> GeneratorStepOutput:
            yield rows(0, 2), False
            sys.exit(4)

    _, record = make(Exits(name="exits")).run(work(1), [in_memory(rows(0, 1))])
    assert record.failure.message == "process() raised SystemExit: 3"
    _, record = make(Ends(name="ends")).run(Work(block=1), [])
    assert record.failure.message == "process(), after 2 rows, raised SystemExit: 4"
    assert record.failure.rows is None, "a generator step has no input rows"


class PanicError(BaseException):
    """What a library written in Rust raises where it should not have come to."""


class Panics(AddOne):
    @property
    def inputs(self) -> list[str]:
        return ["n"]

    def process(self, inputs: StepInput) -> StepOutput:
        if any(row["n"] == 2 for row in inputs):
            raise PanicError("unreachable")
        yield [dict(row) for row in inputs]


class PanicsByRow(Panics):
    row_wise = True


@pytest.mark.parametrize("kind", [Panics, PanicsByRow])
def test_what_a_step_raises_is_its_failure_whether_it_is_an_exception_or_not(
    kind: type[Panics], make: Any
) -> None:
    _, record = make(kind(name="panics")).run(work(2, 2), [in_memory(rows(0, 4))])
    assert record.failure.message == "process() raised PanicError: unreachable"
    assert (record.failure.rows, record.batches) == ((2, 4), 1)
    _, record = make(kind(name="panics", on_error="skip")).run(work(2, 2), [in_memory(rows(0, 4))])
    assert record.failure is None
    (failed,) = record.failed
    assert (failed.first_row, failed.rows) == ((2, 1) if kind is PanicsByRow else (2, 2))
    assert failed.message == "process() raised PanicError: unreachable"


def test_rows_that_were_gathered_into_a_batch_are_named_from_the_first_to_the_last(make: Any) -> None:
    gathered = Work(1, (BatchWork(((2, 1), (4, 2))),), inputs=((Range(0, 0, 3),),), sources=(None,))
    _, record = make(PanicsByRow(name="panics")).run(gathered, [in_memory(rows(0, 3))])
    assert record.failure.rows == (2, 6)


def test_an_interrupt_and_a_dead_engine_are_no_failures_of_the_step(make: Any) -> None:
    class Raises(AddOne):
        row_wise = True
        _error: BaseException = PrivateAttr(default_factory=KeyboardInterrupt)

        def process(self, inputs: StepInput) -> StepOutput:
            raise self._error
            yield inputs

    step = Raises(name="raises", on_error="skip")
    for error in (KeyboardInterrupt(), ProcessUnusableError("dead")):
        step._error = error
        with pytest.raises(type(error)):
            make(step).run(work(1), [in_memory(rows(0, 1))])
