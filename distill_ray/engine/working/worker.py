"""What a replica does: reads its batches, calls the step, encodes the rows and hands them to the writer.

The same class serves every engine; it knows nothing of actors.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import pyarrow as pa

from distill_ray.cache.kept_parts import KeptParts
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import DIGEST_SIZE, decode_rows, encode_rows, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import Shape, UnitIndex
from distill_ray.cache.units import end_key, offset_key
from distill_ray.cache.writer import Block, PartWriter, WriterSettings, WrittenPart, writer_tag
from distill_ray.engine.messages import (
    CALL_SECONDS,
    Failure,
    Purpose,
    StoredPart,
    Work,
    WorkRecord,
)
from distill_ray.engine.working.calls import NOT_OF_THE_STEP, generate_rows
from distill_ray.engine.working.computing import Computing, keys_of, span_of
from distill_ray.engine.working.inputs import Inputs
from distill_ray.engine.working.made import Made, Unit
from distill_ray.engine.working.row_units import joined, own_part
from distill_ray.engine.working.time_limit import OverdueError, TimeLimit
from distill_ray.errors import CorruptObjectError, DistillRayError, RowError
from distill_ray.resources import StepResources
from distill_ray.steps.base import BaseStep, GeneratorStep, Step, batches_at_once_of, label_of
from distill_ray.steps.declared import declared_columns
from distill_ray.steps.secrets import without_secrets
from distill_ray.storage import Storage
from distill_ray.tracebacks import user_traceback
from distill_ray.types import Batch, Row

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSetup:
    """All that a replica is made from.

    Attributes:
        step: the step, without its pipeline.
        function: the step function that its output is stored under.
        sources: the step functions of the steps it takes rows from, and its own, by step name.
        storage: the cache root.
        run: the run's id.
        position: the step's number in the run: steps of one function write under names of their own.
        writer: when parts are cut.
        joins: it only puts stored rows together with changed ones: the step is not loaded.
    """

    step: BaseStep
    function: FunctionId
    sources: Mapping[str, FunctionId]
    storage: Storage
    run: str
    position: int = 0
    writer: WriterSettings = field(default_factory=WriterSettings)
    joins: bool = False

    @property
    def resources(self) -> StepResources:
        """What the replica needs."""
        return StepResources() if self.joins else self.step.resources

    @property
    def calls_at_once(self) -> int:
        """How many calls the replica may work on at once."""
        return 1 if self.joins else batches_at_once_of(self.step)


@dataclass(frozen=True)
class _Part:
    """A part that was read."""

    table: pa.Table
    index: UnitIndex

    @cached_property
    def shapes(self) -> list[Shape]:
        """Each row's shape."""
        return self.index.shapes_of_rows()

    @cached_property
    def _units(self) -> dict[int, int]:
        """The number of each unit that has rows, by its first one."""
        return {first: number for number, (_, first, rows) in enumerate(self.index.units) if rows}

    def answer_at(self, first_row: int) -> bytes:
        """The name of what the step gave for the unit whose rows begin here."""
        unit = self._units[first_row]
        return self.index.copied_name(unit) or self.index.answer_name(unit, first_row)


class Worker:
    """One replica of a step. Several threads may `run` at once where the step's ``process`` allows it.

    Args:
        setup: what it is made from.
        replica: its number.
        has_process: whether its process is there for it alone.
    """

    def __init__(self, setup: WorkerSetup, replica: int, *, has_process: bool = False) -> None:
        self._setup = setup
        self._step = setup.step
        self._name = label_of(setup.step)
        self._store = CacheStore(setup.storage)
        tag = writer_tag(setup.position, replica)
        self._writer = PartWriter(self._store, setup.function, setup.run, tag, setup.writer)
        # One part of each step above, and one more: a batch may end in the next part of one of them.
        self._read: KeptParts[StoredPart, _Part] = KeptParts(
            self._read_part, lambda part: part.table.nbytes, at_least=len(setup.sources) + 1
        )
        self._rows_yielded: Iterator[tuple[list[Row], bool]] | None = None
        self._offset = 0
        self._ended = False
        self._end_stored = False
        seconds = setup.step.batch_timeout if isinstance(setup.step, Step) else None
        self._limit = TimeLimit(seconds, ends_process=has_process)
        self._stuck = ""

    def load(self) -> Failure | None:
        """Load the step; what it raises comes back as text."""
        if self._setup.joins:
            return None
        try:
            self._step.load()
        except KeyboardInterrupt:  # in this process: the user's
            raise
        except BaseException as error:
            return self._raised("load()", error)
        return None

    def run(self, work: Work, handed_over: Sequence[Block]) -> tuple[Block | None, WorkRecord]:
        """Compute the batches, or the generator's next rows, or put stored rows together with others."""
        started = time.perf_counter()
        made = Made()
        if work.purpose is Purpose.KEEP:
            return None, self._keep(handed_over)
        if isinstance(self._step, GeneratorStep):
            self._generate(made, self._step, work)
        elif (inputs := self._inputs(made, work, handed_over)) is None:
            pass
        elif work.purpose is Purpose.JOIN:
            self._join(made, work, inputs.rows)
        elif work.purpose is Purpose.GIVE_UP:
            (batch,) = work.batches
            self._computing.give_up(made, batch, inputs.rows, work.reason)
        else:
            self._compute(made, work, inputs)
        return self._finish(work, made, started)

    def flush(self) -> tuple[tuple[WrittenPart, ...], Failure | None]:
        """Write all rows that are left; returns the parts written and what went wrong."""
        try:
            return self._writer.flush(), None
        except Exception as error:
            return (), self._failed("its output could not be written", error)

    def close(self) -> None:
        """Unload the step and end the writer. The rows are safe by now: what it raises is only logged.

        A step that ``process`` is at still is left as it is.
        """
        self._writer.close()
        if self._setup.joins or self._stuck:
            return
        try:
            self._step.unload()
        except KeyboardInterrupt:  # in this process: the user's
            raise
        except BaseException:
            _log.exception("Step '%s': unload() raised", self._name)

    def _keep(self, blocks: Sequence[Block]) -> WorkRecord:
        """Write what another replica made."""
        try:
            for block in blocks:
                self._writer.add(block)
            return WorkRecord(written=self._writer.take_written())
        except Exception as error:
            return WorkRecord(failure=self._failed("its output could not be written", error))

    # Making rows.

    @property
    def _computing(self) -> Computing:
        assert isinstance(self._step, Step)
        return Computing(self._step, lambda error, rows: self._raised("process()", error, rows), self._limit)

    def _compute(self, made: Made, work: Work, inputs: Inputs) -> None:
        computing = self._computing
        strides = computing.step.strides or (1,) * len(inputs.rows)
        start = 0
        for batch in work.batches:
            if self._stuck:
                return
            end = start + batch.rows
            cuts = [(start * n, end * n) for n in strides]
            given = [rows[first:last] for rows, (first, last) in zip(inputs.rows, cuts, strict=True)]
            try:
                computing.batch(made, batch, given, partial(inputs.afresh, cuts))
            except OverdueError:
                made.overdue = True
                self._stuck = f"took longer than batch_timeout={self._limit.seconds:g} s"
                return
            if made.failure is not None:
                return
            start = end

    def _join(self, made: Made, work: Work, inputs: list[Batch]) -> None:
        """Put what the step gave for rows together with the columns that these have now."""
        assert isinstance(self._step, Step)
        try:
            parts = [None if source is None else self._read(source) for source in work.sources]
        except Exception as error:
            made.failure = self._failed("its stored rows could not be read", error)
            return
        declared = frozenset(declared_columns(self._step))
        keys, wholes = keys_of(self._step, inputs)
        seconds, input_tokens, output_tokens = 0.0, 0.0, 0.0
        for place, (row, stored) in enumerate(zip(inputs[0], work.stored, strict=True)):
            part = parts[stored.source]
            assert part is not None
            shapes = part.shapes[stored.start : stored.start + stored.rows]
            before = decode_rows(part.table.slice(stored.start, stored.rows))
            pairs = zip(before, shapes, strict=True)
            out = [joined(row, own_part(each, shape), declared) for each, shape in pairs]
            cut = slice(place * DIGEST_SIZE, (place + 1) * DIGEST_SIZE)
            made.add(Unit(out, row_digests(out), shapes), keys[cut], wholes[cut])
            # Where units without rows stand does not tell them apart.
            name = part.answer_at(stored.start) if stored.rows else wholes[cut]
            made.answers.append(name)
            share = 1 / max(1, len(part.index.counts))
            seconds += part.index.seconds * share
            input_tokens += part.index.input_tokens * share
            output_tokens += part.index.output_tokens * share
        made.finish(len(work.batches))
        made.cost = seconds, round(input_tokens), round(output_tokens)

    def _generate(self, made: Made, step: GeneratorStep, work: Work) -> None:
        deadline = time.perf_counter() + CALL_SECONDS
        try:
            if self._rows_yielded is None:
                self._offset = work.offset
                self._rows_yielded = generate_rows(step, work.offset)
            while not self._ended and time.perf_counter() < deadline:
                self._take_next(made)
                if work.max_batches and made.batches >= work.max_batches:
                    break
                if len(made.rows) >= 64 * step.batch_size:
                    break
        except NOT_OF_THE_STEP:
            raise
        except BaseException as error:
            made.failure = self._raised(f"process(), after {self._offset} rows,", error)
        made.last = self._ended

    def _take_next(self, made: Made) -> None:
        assert self._rows_yielded is not None
        rows, self._ended = next(self._rows_yielded)
        if rows:
            made.add(Unit(rows, row_digests(rows)), offset_key(self._offset))
            made.finish()
            self._offset += len(rows)

    def _finish(self, work: Work, made: Made, started: float) -> tuple[Block | None, WorkRecord]:
        try:
            table = encode_rows(made.rows)
        except RowError as error:
            return None, WorkRecord(failure=self._raised("process()", error, _range_of(work)))
        seconds, tokens = time.perf_counter() - started, self._step.tokens_of(made.rows)
        record = WorkRecord(
            batches=made.batches,
            counts=tuple(made.counts[: made.finished]),
            digests=b"".join(made.digests[: made.finished]),
            nbytes=table.nbytes,
            seconds=seconds,
            input_tokens=0 if made.cost else tokens[0],
            output_tokens=0 if made.cost else tokens[1],
            last=made.last,
            failed=tuple(made.failed),
            rows_retried=made.retried,
            stuck=self._stuck,
            overdue=made.overdue,
            failure=made.failure,
        )
        if work.purpose is Purpose.CHECK:
            return None, record
        if made.last and not self._end_stored:
            made.add(Unit([], b""), end_key(self._offset))
            self._end_stored = True
        if not made.counts:
            return None, record
        block = Block(work.block, table, made.index(self._setup.run, (seconds, *tokens)))
        try:
            self._writer.add(block)
            record = replace(record, written=self._writer.take_written())
        except Exception as error:
            failure = self._failed("its output could not be written", error)
            record = replace(record, failure=record.failure or failure)
        return block, record

    # Reading rows.

    def _inputs(self, made: Made, work: Work, handed_over: Sequence[Block]) -> Inputs | None:
        """The rows of each predecessor; None where they could not be read."""
        blocks = iter(handed_over)
        try:
            found = [
                next(blocks).table if source is None else self._read(source).table for source in work.sources
            ]
        except Exception as error:
            made.failure = self._failed("its input could not be read", error, _range_of(work))
            return None
        return Inputs(work.inputs, found)

    def _read_part(self, source: StoredPart) -> _Part:
        return _Part(*self._store.read_part(self._setup.sources[source.step], source.name))

    def _raised(self, call: str, error: BaseException, rows: tuple[int, int] | None = None) -> Failure:
        """The user's code raised, or gave something that we refuse in words of our own."""
        ours = isinstance(error, DistillRayError)
        return self._failure(str(error) if ours else f"{call} raised {_said(error)}", error, rows)

    def _failed(self, what: str, error: Exception, rows: tuple[int, int] | None = None) -> Failure:
        failure = self._failure(f"{what}: {_said(error)}", error, rows)
        return replace(failure, damaged=isinstance(error, CorruptObjectError))

    def _failure(self, message: str, error: BaseException, rows: tuple[int, int] | None) -> Failure:
        trace = self._presentable(user_traceback(error))
        return Failure(self._name, self._presentable(message), trace, rows)

    def _presentable(self, text: str) -> str:
        """The text without the step's secrets, and without the lone surrogates that no file can hold."""
        return without_secrets(text, self._step).encode("utf-8", "backslashreplace").decode()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _range_of(work: Work) -> tuple[int, int] | None:
    return span_of(work.batches) if work.batches else None
