"""What a replica does: reads its batches, calls the step, encodes the rows and hands them to the writer.

The same class serves every engine; it knows nothing of actors.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import pyarrow as pa

from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import decode_rows, encode_rows, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.units import end_key, offset_key
from distill_ray.cache.writer import Block, PartWriter, WriterSettings, WrittenPart
from distill_ray.engine.messages import CALL_SECONDS, Failure, Range, StoredPart, Work, WorkRecord
from distill_ray.errors import DistillRayError, RowError
from distill_ray.steps.base import BaseStep, GeneratorStep, Step, label_of
from distill_ray.steps.mappings import to_pipeline_names, to_step_names
from distill_ray.steps.secrets import without_secrets
from distill_ray.storage import Storage
from distill_ray.tracebacks import user_traceback
from distill_ray.types import METADATA, Batch, Row

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSetup:
    """All that a replica is made from.

    Attributes:
        step: the step, without its pipeline.
        function: the step function that its output is stored under.
        sources: the step functions of the steps it takes rows from, by step name.
        storage: the cache root.
        run: the run's id.
        position: the step's number in the run: steps of one function write under names of their own.
        writer: when parts are cut.
    """

    step: BaseStep
    function: FunctionId
    sources: Mapping[str, FunctionId]
    storage: Storage
    run: str
    position: int = 0
    writer: WriterSettings = field(default_factory=WriterSettings)


@dataclass
class _Made:
    """Rows and units of one call."""

    rows: list[Row] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    failure: Failure | None = None
    last: bool = False

    def add(self, key: bytes, rows: Sequence[Row]) -> None:
        self.keys.append(key)
        self.counts.append(len(rows))
        self.rows.extend(rows)


class Worker:
    """One replica of a step."""

    def __init__(self, setup: WorkerSetup, replica: int) -> None:
        self._setup = setup
        self._step = setup.step
        self._name = label_of(setup.step)
        self._store = CacheStore(setup.storage)
        tag = f"{setup.position:03d}-{replica:03d}"
        self._writer = PartWriter(self._store, setup.function, setup.run, tag, setup.writer)
        self._read = lru_cache(maxsize=4)(self._read_part)
        self._rows_yielded: Iterator[tuple[list[Row], bool]] | None = None
        self._offset = 0
        self._ended = False
        self._end_stored = False

    def load(self) -> Failure | None:
        """Load the step; what it raises comes back as text."""
        try:
            self._step.load()
        except BaseException as error:
            return self._raised("load()", error)
        return None

    def run(self, work: Work, tables: Sequence[pa.Table]) -> tuple[pa.Table | None, WorkRecord]:
        """Compute the batches, or the generator's next rows."""
        started = time.perf_counter()
        if isinstance(self._step, GeneratorStep):
            made = self._generate(self._step, work)
        else:
            made = self._process(work, tables)
        return self._finish(work, made, started)

    def flush(self) -> tuple[tuple[WrittenPart, ...], Failure | None]:
        """Write all rows that are left; returns the parts written and what went wrong."""
        try:
            return self._writer.flush(), None
        except Exception as error:
            return (), self._failed("its output could not be written", error)

    def close(self) -> None:
        """Unload the step and end the writer. The rows are safe by now: what it raises is only logged."""
        self._writer.close()
        try:
            self._step.unload()
        except Exception:
            _log.exception("Step '%s': unload() raised", self._name)

    # Making rows.

    def _process(self, work: Work, tables: Sequence[pa.Table]) -> _Made:
        made = _Made()
        try:
            inputs = self._inputs(work, tables)
        except Exception as error:
            made.failure = self._failed("its input could not be read", error, _range_of(work))
            return made
        start = 0
        for batch in work.batches:
            rows = (batch.first_row, batch.first_row + batch.rows)
            try:
                out = self._call([each[start : start + batch.rows] for each in inputs])
            except (Exception, SystemExit) as error:
                made.failure = self._raised("process()", error, rows)
                return made
            made.add(batch.key, out)
            start += batch.rows
        return made

    def _call(self, batches: list[Batch]) -> list[Row]:
        step = self._step
        assert isinstance(step, Step)
        out: list[Row] = []
        given = (to_step_names(batch, step.input_mappings) for batch in batches)
        for rows in _yielded(step.process(*given)):
            _check_rows(rows)
            out.extend(map(dict, rows))  # as they are now: a step may go on to change what it yielded
        return to_pipeline_names(out, step.input_mappings, step.output_mappings)

    def _generate(self, step: GeneratorStep, work: Work) -> _Made:
        made = _Made()
        deadline = time.perf_counter() + CALL_SECONDS
        try:
            if self._rows_yielded is None:
                self._offset = work.offset
                self._rows_yielded = _yielded(step.process(offset=work.offset))
            while not self._ended and time.perf_counter() < deadline:
                self._take_next(step, made)
                if work.max_batches and len(made.counts) >= work.max_batches:
                    break
                if len(made.rows) >= 64 * step.batch_size:
                    break
        except (Exception, SystemExit) as error:
            made.failure = self._raised(f"process(), after {self._offset} rows,", error)
        made.last = self._ended
        return made

    def _take_next(self, step: GeneratorStep, made: _Made) -> None:
        assert self._rows_yielded is not None
        rows, last = _check_pair(next(self._rows_yielded, ([], True)))
        if rows:
            rows = to_pipeline_names([dict(row) for row in rows], {}, step.output_mappings)
            made.add(offset_key(self._offset), rows)
            self._offset += len(rows)
        self._ended = last

    def _finish(self, work: Work, made: _Made, started: float) -> tuple[pa.Table | None, WorkRecord]:
        try:
            table, digests = encode_rows(made.rows), row_digests(made.rows)
        except RowError as error:
            failure = self._raised("process()", error, _range_of(work))
            return None, WorkRecord(failure=failure)
        record = WorkRecord(
            tuple(made.counts),
            digests,
            table.nbytes,
            time.perf_counter() - started,
            *_tokens(made.rows, self._name),
            last=made.last,
            failure=made.failure,
        )
        try:
            self._store_rows(work.block, table, made, record)
            record = replace(record, written=self._writer.take_written())
        except Exception as error:
            failure = self._failed("its output could not be written", error)
            record = replace(record, failure=record.failure or failure)
        return table, record

    def _store_rows(self, block: int, table: pa.Table, made: _Made, record: WorkRecord) -> None:
        """Hand the rows to the writer; a generator that has ended also leaves a unit that says so."""
        keys, counts = b"".join(made.keys), record.counts
        if made.last and not self._end_stored:
            keys, counts = keys + end_key(self._offset), (*counts, 0)
            self._end_stored = True
        if counts:
            tokens = record.input_tokens, record.output_tokens
            self._writer.add(Block(block, table, keys, counts, record.digests, record.seconds, *tokens))

    # Reading rows.

    def _inputs(self, work: Work, tables: Sequence[pa.Table]) -> list[list[Row]]:
        handed_over = iter(tables)
        found = [next(handed_over) if source is None else self._read(source) for source in work.sources]
        return [_rows(ranges, found) for ranges in work.inputs]

    def _read_part(self, source: StoredPart) -> pa.Table:
        return self._store.read_part(self._setup.sources[source.step], source.name)[0]

    def _raised(self, call: str, error: BaseException, rows: tuple[int, int] | None = None) -> Failure:
        """The user's code raised, or gave something that we refuse in words of our own."""
        ours = isinstance(error, DistillRayError)
        return self._failure(str(error) if ours else f"{call} raised {_said(error)}", error, rows)

    def _failed(self, what: str, error: Exception, rows: tuple[int, int] | None = None) -> Failure:
        return self._failure(f"{what}: {_said(error)}", error, rows)

    def _failure(self, message: str, error: BaseException, rows: tuple[int, int] | None) -> Failure:
        trace = self._presentable(user_traceback(error))
        return Failure(self._name, self._presentable(message), trace, rows)

    def _presentable(self, text: str) -> str:
        """The text without the step's secrets, and without the lone surrogates that no file can hold."""
        return without_secrets(text, self._step).encode("utf-8", "backslashreplace").decode()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _range_of(work: Work) -> tuple[int, int] | None:
    if not work.batches:
        return None
    return work.batches[0].first_row, work.batches[-1].first_row + work.batches[-1].rows


def _rows(ranges: Sequence[Range], tables: Sequence[pa.Table]) -> list[Row]:
    rows: list[Row] = []
    for each in ranges:
        rows += decode_rows(tables[each.source].slice(each.start, each.rows))
    return rows


def _yielded(result: Any) -> Iterator[Any]:
    if isinstance(result, Iterator):
        return result
    raise RowError(
        f"process() must yield what it makes, but it returned {result!r:.200}: use `yield`, in a plain `def`."
    )


def _check_rows(rows: Any) -> None:
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return
    remedy = ": a single row is `yield [row]`" if isinstance(rows, dict) else ""
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


def _tokens(rows: Sequence[Row], step: str) -> tuple[int, int]:
    """Tokens that the rows say this step's model read and wrote."""
    totals = [0, 0]
    for row in rows:
        metadata = row.get(METADATA)
        for each in metadata if isinstance(metadata, list) else [metadata]:  # grouped generations: a list
            statistics = each.get(f"statistics_{step}") if isinstance(each, dict) else None
            if isinstance(statistics, dict):
                totals[0] += _total(statistics.get("input_tokens"))
                totals[1] += _total(statistics.get("output_tokens"))
    return totals[0], totals[1]


def _total(tokens: Any) -> int:
    """A number of tokens, or the sum of one for each generation; users may write anything there."""
    counts = tokens if isinstance(tokens, list) else [tokens]
    return sum(each for each in counts if isinstance(each, int))
