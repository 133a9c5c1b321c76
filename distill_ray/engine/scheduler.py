"""The scheduler: a pure state machine that is told what happened and says what to do next.

It sees names, counts and digests, never rows, and does no I/O: the tests run it by itself. Steps run at
the same time; the rows of each leave it in the order of its input, whatever the replicas' speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.units import StoredUnit, StoredUnits, batch_key, end_key, offset_key
from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.blocks import DIGEST_BYTES, Blocks, Edge, Piece, Slice
from distill_ray.engine.messages import (
    Action,
    CommitOutput,
    Committed,
    Event,
    Failure,
    Flushed,
    FlushReplica,
    ReleaseBlocks,
    ReplicaLost,
    ReplicaReady,
    SendWork,
    StartReplica,
    StopReplica,
    StopRequested,
    Work,
    WorkDone,
    failure_of,
)
from distill_ray.engine.sending import send_work
from distill_ray.engine.step_state import Batch, Phase, Replica, StepSpec, StepState


class Scheduler:
    """Decides what runs next.

    Args:
        specs: the steps to run, each after those it takes rows from.
        stored: for each step the units that earlier runs left.
        live_bytes: bytes that a step's rows may hold in memory.
    """

    def __init__(
        self,
        specs: Sequence[StepSpec],
        stored: Mapping[str, StoredUnits] | None = None,
        live_bytes: int = 256 << 20,
    ) -> None:
        self.blocks = Blocks(live_bytes)
        self.steps: dict[str, StepState] = {}
        self.failure: Failure | None = None
        self.stopping = False
        self._sources: dict[str, list[Edge]] = {}
        for spec in specs:
            edges = tuple(self._edge(name) for name in spec.predecessors)
            known = (stored or {}).get(spec.name) or StoredUnits()
            self.steps[spec.name] = StepState(spec, known, edges)

    def _edge(self, producer: str) -> Edge:
        edge = Edge(producer)
        if producer in self.steps:
            self.steps[producer].outputs.append(edge)
        else:
            self._sources.setdefault(producer, []).append(edge)
        return edge

    def feed(self, producer: str, part: PartEntry, first_row: int, rows: int, digests: bytes) -> None:
        """Give rows of a complete output of an earlier run to the steps that follow it, in order."""
        for edge in self._sources.get(producer, ()):
            piece = Piece(Slice(self.blocks.in_part(producer, part), first_row, rows), digests)
            self.blocks.need(piece.slice)
            edge.push(piece)

    def feed_end(self, producer: str) -> None:
        """Say that `feed` has given all rows of this output."""
        for edge in self._sources.get(producer, ()):
            edge.closed = True

    @property
    def complete(self) -> bool:
        """Whether every step's output is written."""
        return all(state.phase is Phase.DONE for state in self.steps.values())

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        if not self._winding_down:
            return self.complete
        return all(self._is_quiet(state) for state in self.steps.values())

    @property
    def _winding_down(self) -> bool:
        return self.failure is not None or self.stopping

    @staticmethod
    def _is_quiet(state: StepState) -> bool:
        waiting = any(not r.flushed for r in state.replicas.values() if r.ready)
        return not state.calls and not waiting and state.phase is not Phase.COMMITTING

    # What happened.

    def handle(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, StopRequested):
            self.stopping = True
            return
        state = self.steps[event.step]
        if (failure := failure_of(event)) is not None:
            self._fail(failure)
        if isinstance(event, WorkDone):
            self._in_order(state, event)
        elif isinstance(event, ReplicaReady):
            state.replicas[event.replica].ready = event.failure is None
        elif isinstance(event, Flushed):
            self._parts_written(event.written)
            replica = state.replicas[event.replica]
            replica.calls -= 1
            replica.flushed = replica.ending
        elif isinstance(event, Committed):
            state.phase = Phase.DONE if event.failure is None else Phase.FLUSHING
        elif isinstance(event, ReplicaLost):
            self._replica_lost(state, event)

    def _fail(self, failure: Failure) -> None:
        self.failure = self.failure or failure

    def _replica_lost(self, state: StepState, event: ReplicaLost) -> None:
        state.replicas.pop(event.replica, None)
        lost = [number for number, (replica, _) in state.calls.items() if replica == event.replica]
        batches = [batch for number in lost for batch in state.calls.pop(number)[1]]
        rows = (batches[0].first_row, batches[-1].first_row + batches[-1].rows) if batches else None
        self._fail(Failure(event.step, f"replica {event.replica} died: {event.reason}", rows=rows))

    def _parts_written(self, parts: Sequence[WrittenPart]) -> None:
        for part in parts:
            self.blocks.written(part)

    def _in_order(self, state: StepState, event: WorkDone) -> None:
        """A generator's rows have only their order: calls that return early wait for those before."""
        if state.spec.kind != "generator":
            self._work_done(state, event)
            return
        state.returned[event.block] = event
        for block in list(state.calls):
            if block not in state.returned:
                return
            self._work_done(state, state.returned.pop(block))

    def _work_done(self, state: StepState, event: WorkDone) -> None:
        _, batches = state.calls.pop(event.block)
        state.replicas[event.replica].calls -= 1
        record = event.record
        if record.counts:
            self.blocks.made(event.block, record.nbytes)
        self._parts_written(record.written)
        self._count(state, event, batches)
        if state.spec.kind == "generator":
            units = [state.new_unit() for _ in record.counts]
            state.offset += sum(record.counts)
            state.ended = state.ended or record.last
        else:
            units = [batch.unit for batch in batches[: len(record.counts)]]
            for batch in batches:
                for slices in batch.slices:
                    self.blocks.done(slices)
        start = 0
        for unit, rows in zip(units, record.counts, strict=True):
            digests = record.digests[start * DIGEST_BYTES : (start + rows) * DIGEST_BYTES]
            self._resolve(state, unit, Piece(Slice(event.block, start, rows), digests))
            start += rows

    @staticmethod
    def _count(state: StepState, event: WorkDone, batches: Sequence[Batch]) -> None:
        record, counters = event.record, state.counters
        state.pace.learn(len(batches), record)
        counters.rows_in += sum(batch.rows for batch in batches[: len(record.counts)])
        counters.rows_computed += sum(record.counts)
        counters.batches_computed += len(batches[: len(record.counts)]) or len(record.counts)
        counters.seconds += record.seconds
        counters.input_tokens += record.input_tokens
        counters.output_tokens += record.output_tokens

    def _resolve(self, state: StepState, unit: int, piece: Piece) -> None:
        for emitted in state.resolve(unit, piece):
            for edge in state.outputs:
                self.blocks.need(emitted.slice)
                edge.push(emitted)

    # What to do.

    def actions(self) -> Iterator[Action]:
        """Say what to do now. Each action counts as under way as soon as it was said."""
        if released := self.blocks.release():
            yield ReleaseBlocks(released)
        for state in self.steps.values():
            if self._winding_down:
                yield from self._flush(state)
                continue
            if state.phase is Phase.RUNNING:
                yield from self._run(state)
            if state.phase is Phase.FLUSHING:
                yield from self._flush(state)
                yield from self._commit(state)

    def _run(self, state: StepState) -> Iterator[Action]:
        if state.spec.kind == "generator":
            self._look_up_offsets(state)
            if not state.ended:
                yield from self._start(state)
                yield from self._advance(state)
        else:
            self._form_batches(state)
            if state.pending:
                yield from self._start(state)
            yield from self._dispatch(state)
        if self.failure is None and state.input_ended and state.all_emitted:
            for edge in state.outputs:
                edge.closed = True
            state.phase = Phase.FLUSHING

    @staticmethod
    def _start(state: StepState) -> Iterator[Action]:
        count = 1 if state.spec.kind != "step" else state.spec.replicas
        for number in range(len(state.replicas), count):
            state.replicas[number] = Replica()
            yield StartReplica(state.spec.name, number)

    def warm_up(self, steps: Sequence[str]) -> Iterator[Action]:
        """Start the replicas of steps that will surely compute, before their first rows are there."""
        for name in steps:
            yield from self._start(self.steps[name])

    def _look_up_offsets(self, state: StepState) -> None:
        """Take over what earlier runs know of a generator's rows, up to the first gap."""
        if state.replicas or state.ended:
            return
        while (found := state.stored.take(offset_key(state.offset))) is not None:
            self._reuse(state, state.new_unit(), found)
            state.offset += found.rows
        state.ended = state.stored.take(end_key(state.offset)) is not None

    def _reuse(self, state: StepState, unit: int, found: StoredUnit) -> None:
        block = self.blocks.in_part(state.spec.name, found.part)
        state.counters.rows_reused += found.rows
        self._resolve(state, unit, Piece(Slice(block, found.first_row, found.rows), found.digests))

    def _form_batches(self, state: StepState) -> None:
        """Cut the input that is there into batches; those whose rows are stored need no replica."""
        enough = 2 * state.pace.batches * state.spec.replicas + 1
        while len(state.pending) < enough and (rows := self._next_batch_rows(state)):
            taken = [edge.take(rows) for edge in state.inputs]
            slices = tuple(tuple(pieces) for pieces, _ in taken)
            batch = Batch(
                unit=state.new_unit(),
                key=batch_key([digests for _, digests in taken]),
                first_row=state.offset,
                rows=rows,
                slices=slices,
            )
            state.offset += rows
            found = state.stored.take(batch.key)
            if found is None:
                state.pending.append(batch)
                continue
            state.counters.rows_in += rows
            for pieces in slices:
                self.blocks.done(pieces)
            self._reuse(state, batch.unit, found)

    def _next_batch_rows(self, state: StepState) -> int:
        available = min(edge.rows for edge in state.inputs)
        if all(edge.closed for edge in state.inputs):
            self._check_lengths(state)
            if self.failure is not None:
                return 0
            return available if state.spec.kind == "global" else min(available, state.spec.batch_size)
        if state.spec.kind == "global" or available < state.spec.batch_size:
            return 0
        return state.spec.batch_size

    def _check_lengths(self, state: StepState) -> None:
        longest = max(state.inputs, key=lambda edge: edge.total)
        shortest = min(state.inputs, key=lambda edge: edge.total)
        if longest.total != shortest.total:
            self._fail(
                Failure(
                    state.spec.name,
                    f"its predecessors are joined row by row, but '{longest.producer}' gave {longest.total} "
                    f"rows and '{shortest.producer}' gave {shortest.total}. Let steps that change the number "
                    "of rows come after the join, or before the branches part.",
                )
            )

    def _dispatch(self, state: StepState) -> Iterator[Action]:
        while state.pending:
            if self.blocks.are_full(state.spec.name):
                yield from self._relieve(state)
                return
            replica = state.free_replica()
            if replica is None:
                return
            more_to_come = not state.input_ended and state.replicas[replica].calls > 0
            if len(state.pending) < state.pace.batches and more_to_come:
                return
            ready = sum(1 for each in state.replicas.values() if each.ready)
            share = -(-len(state.pending) // ready)
            count = min(state.pace.batches, share)
            batches = tuple(state.pending.popleft() for _ in range(count))
            block = self.blocks.new(state.spec.name)
            state.calls[block] = (replica, batches)
            state.replicas[replica].calls += 1
            yield send_work(state.spec.name, replica, block, batches, self.blocks)

    def _advance(self, state: StepState) -> Iterator[Action]:
        if state.spec.max_batches and state.counters.batches_computed >= state.spec.max_batches:
            state.ended = True
            return
        while True:
            if self.blocks.are_full(state.spec.name):
                yield from self._relieve(state)
                return
            replica = state.free_replica()
            if replica is None or (state.spec.max_batches and state.calls):
                return
            block = self.blocks.new(state.spec.name)
            state.calls[block] = (replica, ())
            state.replicas[replica].calls += 1
            work = Work(block, offset=state.offset, max_batches=state.spec.max_batches)
            yield SendWork(state.spec.name, replica, work)

    @staticmethod
    def _relieve(state: StepState) -> Iterator[Action]:
        """Memory is full of rows that are not stored yet: have them written, so that they can be let go."""
        for number, replica in state.replicas.items():
            if replica.ready and replica.calls == 0:
                replica.calls = 1
                yield FlushReplica(state.spec.name, number)

    @staticmethod
    def _flush(state: StepState) -> Iterator[Action]:
        if state.calls or state.phase in (Phase.COMMITTING, Phase.DONE):
            return
        for number, replica in state.replicas.items():
            if replica.ready and not replica.flushed and replica.calls == 0:
                replica.calls, replica.ending = 1, True
                yield FlushReplica(state.spec.name, number)

    @staticmethod
    def _commit(state: StepState) -> Iterator[Action]:
        if all(replica.flushed for replica in state.replicas.values()):
            state.phase = Phase.COMMITTING
            yield CommitOutput(state.spec.name)
            for number in state.replicas:
                yield StopReplica(state.spec.name, number)
