"""The scheduler: a pure state machine that is told what happened and says what to do next.

It sees names, counts and digests, never rows, and does no I/O: the tests run it by itself. Steps run at
the same time; the rows of each leave it in the order of its input, whatever the replicas' speed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from distill_ray.cache.units import StoredRows, StoredUnits
from distill_ray.engine.actions import Action, ReleaseBlocks
from distill_ray.engine.messages import (
    Committed,
    DigestsRead,
    Event,
    Failure,
    Flushed,
    KeysRead,
    NodesSeen,
    NoRoom,
    PartsFound,
    Purpose,
    ReplicaEvent,
    ReplicaLost,
    ReplicaReady,
    RowsLost,
    StopRequested,
    UnitsFound,
    WorkDone,
    failure_of,
)
from distill_ray.engine.scheduling.blocks import LIVE_BYTES, Blocks
from distill_ray.engine.scheduling.changed import Changed
from distill_ray.engine.scheduling.counting import compare, count
from distill_ray.engine.scheduling.dispatching import advance, compute
from distill_ray.engine.scheduling.edge import Edge
from distill_ray.engine.scheduling.feeds import Feeds
from distill_ray.engine.scheduling.placing import Placing, begin_stage, computes
from distill_ray.engine.scheduling.poison import handed_in
from distill_ray.engine.scheduling.recovery import (
    beyond_recovery,
    parts_found,
    recover,
    recovered,
    replica_lost,
    reported,
    rows_lost,
)
from distill_ray.engine.scheduling.replicas import commit, flush_idle, flush_replicas, let_go
from distill_ray.engine.scheduling.routing import Routes, RouteSpec
from distill_ray.engine.scheduling.row_flow import (
    emit_made,
    length_mismatch,
    look_up_offsets,
    read_late,
    rows_ahead,
    rows_failed,
    was_read,
)
from distill_ray.engine.scheduling.row_lookup import take_rows, units_found
from distill_ray.engine.scheduling.step_state import Phase, StepSpec, StepState, Unsaved

RARE = ReplicaLost | RowsLost | NoRoom | PartsFound | UnitsFound
"""Events that may let any step go on."""


class Scheduler:
    """Decides what runs next.

    Args:
        specs: the steps to run, each after those it takes rows from.
        stored: for each step the units that earlier runs left.
        awaited: steps that other runs compute.
        live_bytes: bytes that rows may hold in memory between the steps.
        routes: how rows are routed, each for the step that they come from.
    """

    def __init__(
        self,
        specs: Sequence[StepSpec],
        stored: Mapping[str, StoredUnits] | None = None,
        live_bytes: int = LIVE_BYTES,
        awaited: Collection[str] = (),
        routes: Sequence[RouteSpec] = (),
    ) -> None:
        self.blocks = Blocks(live_bytes, len(specs), read_late(specs))
        self.steps: dict[str, StepState] = {}
        self.failure: Failure | None = None
        self.stopping = False
        self._feeds = Feeds()
        self.routes = Routes(routes, self.blocks)
        self._undone = {spec.name for spec in specs}
        self._changed = Changed([spec.name for spec in specs])
        for spec in specs:
            edges = self.routes.edges(spec, rows_ahead(spec), self._follow)
            known, awaits = (stored or {}).get(spec.name, StoredUnits()), spec.name in awaited
            self.steps[spec.name] = StepState(spec, known, edges, awaited=awaits)
        self.routes.join(self.steps.values())
        self.placing = Placing(self.steps, self._changed.add)
        self._changed.update(begin_stage(self.steps, self._undone))

    def _follow(self, producer: str, edge: Edge) -> None:
        if producer in self.steps:
            self.steps[producer].outputs.append(edge)
        else:
            self._feeds.add(edge)

    def feed(self, producer: str, found: StoredRows) -> None:
        """Give rows of a complete output of an earlier run to the steps that follow it, in order."""
        self._feeds.feed(producer, found, self.blocks)
        self._changed.update(self._feeds.consumers(producer))

    def wants_rows(self, producer: str) -> bool:
        """Whether a step that follows this complete output has few of its rows left."""
        return not self._winding_down and self._feeds.wants_rows(producer)

    def feed_end(self, producer: str) -> None:
        """Say that `feed` has given all rows of this output."""
        self._feeds.end(producer)
        self._changed.update(self._feeds.consumers(producer))

    @property
    def complete(self) -> bool:
        """Whether every step's output is written."""
        return not self._undone

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
        return not state.calls and state.replicas.all_flushed and state.phase is not Phase.COMMITTING

    # What happened.

    def handle(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, StopRequested):
            self.stopping = True
            return
        if isinstance(event, NodesSeen):
            self.placing.seen(event.nodes, event.seconds)
            self._fail(event.failure)
            return
        state = self.steps[event.step]
        if isinstance(event, ReplicaEvent) and event.replica not in state.replicas:
            return  # it was abandoned, or is known to be lost: its other answers may still be on their way
        if isinstance(event, RARE) or state.orphans or state.lost:
            self._changed.add_all()  # others may have waited for rows, or for room
        self._changed.add(event.step)
        if (failure := failure_of(event)) is not None:
            self._fail(failure)
        if isinstance(event, ReplicaEvent):
            self._replica_reports(state, event)
        elif isinstance(event, RowsLost | NoRoom | PartsFound):
            self._recover(state, event)
        elif isinstance(event, Committed):
            self._committed(state, event)
        elif isinstance(event, KeysRead | DigestsRead):
            was_read(state, event, self.blocks)
        else:
            units_found(state, event, self.blocks)

    def _committed(self, state: StepState, event: Committed) -> None:
        state.phase = Phase.DONE if event.failure is None else Phase.FLUSHING
        if event.failure is None:
            self._undone.discard(event.step)
            self._changed.update(begin_stage(self.steps, self._undone))

    def _recover(self, state: StepState, event: RowsLost | NoRoom | PartsFound) -> None:
        if isinstance(event, RowsLost):
            rows_lost(self.steps, event, self.blocks)
        elif isinstance(event, PartsFound):
            parts_found(state, event, self.blocks)
        elif event.replica in state.replicas:
            self.placing.no_room(state, event.replica)

    def _replica_reports(self, state: StepState, event: ReplicaEvent) -> None:
        if isinstance(event, WorkDone):
            self._in_order(state, event)
        elif isinstance(event, ReplicaReady):
            if event.failure is None:
                state.replicas.loaded(event.replica, event.node)
        elif isinstance(event, Flushed):
            reported(state, event.replica, event.written, self.blocks)
            state.replicas.wrote_all(event.replica)
        elif state.phase in (Phase.RUNNING, Phase.FLUSHING):  # after that all it made is written
            if event.with_node:
                self.placing.lost(state.replicas[event.replica].place)
            self._fail(replica_lost(state, event, self.blocks))

    def _fail(self, failure: Failure | None) -> None:
        self.failure = self.failure or failure

    def _in_order(self, state: StepState, event: WorkDone) -> None:
        """A generator's rows have only their order: calls that return early wait for those before."""
        if state.spec.kind != "generator" or event.block in state.orphans:
            self._work_done(state, event)
            return
        state.returned[event.block] = event
        for block in [block for block in state.calls if block not in state.orphans]:
            if block not in state.returned:
                return
            self._work_done(state, state.returned.pop(block))

    def _work_done(self, state: StepState, event: WorkDone) -> None:
        state.replicas.returned(event.replica)
        state.deaths = 0
        record = event.record
        reported(state, event.replica, record.written, self.blocks)
        if event.block in state.orphans:
            self._fail(recovered(state, event, self.blocks))
            return
        batches, problem = handed_in(state, event, self.blocks)
        self._fail(problem)
        if batches and batches[0].purpose is Purpose.CHECK:
            self.blocks.forget(event.block)
            compare(state, record, batches)
            return
        self._fail(rows_failed(state, record.failed, self.steps))
        if record.counts:
            self.blocks.made(event.block, record.nbytes, event.replica, record.digests)
            made = Unsaved(event.replica, batches, record.counts, record.digests)
            if self.blocks.stored_at(event.block) is None:
                state.unsaved[event.block] = made
        count(state, record, batches)
        if state.spec.kind == "generator":
            places = [(state.new_place(), 1) for _ in record.counts]
            state.offset += sum(record.counts)
            state.ended = state.ended or record.last
        else:
            done = [run for batch in batches[: record.batches] for run in batch.runs]
            places = [(run.place, run.rows if state.spec.columns is not None else 1) for run in done]
        emit_made(state, self.blocks, event, places)

    # What to do.

    def actions(self) -> Iterator[Action]:
        """Say what to do now. Each action counts as under way as soon as it was said."""
        went_on = not self._winding_down
        yield from self._actions()
        self._fail(self.routes.failure)
        if went_on and self._winding_down:  # a failure came to light: what is there is written
            yield from self._actions()

    def _actions(self) -> Iterator[Action]:
        if released := self.blocks.release():
            yield ReleaseBlocks(released)
            self._changed.update(self.blocks.no_longer_held_up())
        while not self._winding_down:
            if (name := self._changed.next()) is not None:
                yield from self._go_on(self.steps[name])
            elif self.placing.due:
                yield from self.placing.decide()
            else:
                break
        if self._winding_down:
            for state in self.steps.values():
                yield from flush_idle(state)
                if state.phase is Phase.FLUSHING and self.failure is None:
                    yield from commit(state)  # stopped when it had all its rows: a hit for the next run

    def _go_on(self, state: StepState) -> Iterator[Action]:
        """Say what is to be done for a step to which something has happened."""
        if state.phase is Phase.RUNNING:
            yield from self._run(state)
        if state.phase is Phase.FLUSHING:
            yield from flush_replicas(state)
            yield from commit(state)
        if state.gave:
            state.gave = False
            self._changed.update(name for edge in state.outputs for name in edge.consumers)
        self.placing.note(state)

    def _run(self, state: StepState) -> Iterator[Action]:
        if state.spec.kind == "generator":
            look_up_offsets(state, self.blocks)
            if not state.ended and computes(state):
                yield from advance(state, self.blocks)
        else:
            yield from take_rows(state, self.blocks)
            self._fail(length_mismatch(state))
            if computes(state):
                yield from compute(state, self.blocks)
        self._fail(beyond_recovery(state, self.blocks))
        yield from recover(state, self.blocks)
        yield from let_go(state)
        done = state.input_ended and state.all_emitted and state.all_saved
        # An output that another run computes is left to it to write.
        if self.failure is None and done and not state.awaited:
            for edge in state.outputs:
                edge.close()
            state.gave, state.phase = True, Phase.FLUSHING

    def warm_up(self, steps: Sequence[str]) -> Iterator[Action]:
        """Start the replicas of steps that will surely compute, before their first rows are there.

        Only where all of them find room at once: else a step could keep those above it from starting. What
        another run computes may never need any here.
        """
        yield from self.placing.warm_up([self.steps[name] for name in steps if computes(self.steps[name])])
