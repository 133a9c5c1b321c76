"""How rows flow through a step: from its predecessors into batches, from its units to the steps that follow.

Units that an earlier run stored are taken over on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.units import StoredRows, batch_key, end_key, offset_key
from distill_ray.engine.actions import ReadDigests
from distill_ray.engine.messages import DigestsRead, FailedRows, Failure, KeysRead, Purpose, WorkDone
from distill_ray.engine.scheduling.batches import Batch, Run
from distill_ray.engine.scheduling.blocks import Blocks, Piece, Slice
from distill_ray.engine.scheduling.step_state import StepSpec, StepState

TO_JOIN = 8
"""Batches that may wait for the replica that joins."""

ROWS_AHEAD = 100_000
"""Rows that wait for a step with their digests at hand: 16 bytes each in the driver."""


def rows_ahead(spec: StepSpec) -> float:
    """How many rows may wait for a step with their digests at hand; a global step is given all at once."""
    return math.inf if spec.kind == "global" else max(ROWS_AHEAD, 2 * spec.batch_size)


def read_late(specs: Sequence[StepSpec]) -> frozenset[str]:
    """The steps whose rows nobody reads before all of them are there: only global steps follow."""
    kinds: dict[str, set[str]] = {}
    for spec in specs:
        for name in spec.predecessors:
            kinds.setdefault(name, set()).add(spec.kind)
    return frozenset(name for name, of_followers in kinds.items() if of_followers == {"global"})


def emit(state: StepState, blocks: Blocks, place: int, piece: Piece) -> None:
    """Take in the rows for a place, and hand on what is now next in the output's order."""
    for emitted in state.resolve(place, piece):
        for edge in state.outputs:
            blocks.need(emitted.slice)
            edge.push(emitted)


def draw_near(state: StepState, blocks: Blocks) -> Iterator[ReadDigests]:
    """Have the digests of a step's next rows at hand; ask for those that were left out."""
    for edge in state.inputs:
        block = edge.draw_near(blocks)
        stored = None if block is None else blocks.stored_at(block)
        if stored is not None and stored[0].name not in state.asked_for_digests:
            state.asked_for_digests.add(stored[0].name)
            yield ReadDigests(state.spec.name, edge.producer, stored[0])


def was_read(state: StepState, event: KeysRead | DigestsRead, blocks: Blocks) -> None:
    """Take in digests that a step asked for."""
    if isinstance(event, DigestsRead):
        state.asked_for_digests.discard(event.part)
        if event.failure is None:
            blocks.digests_read(event.part, event.digests)
        return
    state.asked_for_keys.discard(event.block)
    if event.failure is None:
        blocks.keys_read(event.block, event.columns, event.keys)


def emit_made(state: StepState, blocks: Blocks, event: WorkDone, places: Sequence[tuple[int, int]]) -> None:
    """Put the rows that a call made into their places; ``places`` gives each and the number of its units."""
    counts, digests = event.record.counts, event.record.digests
    unit, start = 0, 0
    for place, units in places:
        rows = sum(counts[unit : unit + units])
        cut = digests[start * DIGEST_SIZE : (start + rows) * DIGEST_SIZE]
        emit(state, blocks, place, Piece(Slice(event.block, start, rows), cut))
        unit += units
        start += rows


def look_up_offsets(state: StepState, blocks: Blocks) -> None:
    """Take over what earlier runs know of a generator's rows, up to the first gap."""
    if state.replicas or state.ended:
        return
    while (found := state.stored.take(offset_key(state.offset))) is not None:
        reuse(state, blocks, state.new_place(), found)
        state.offset += found.rows
    state.ended = state.stored.take(end_key(state.offset)) is not None


def enough_pending(state: StepState) -> bool:
    """Whether the replicas have enough batches to choose from."""
    calls = (1 + state.spec.batches_at_once) * state.spec.replicas
    return len(state.pending) > state.pace.batches * calls or len(state.to_join) > TO_JOIN


def form_batches(state: StepState, blocks: Blocks) -> None:
    """Cut the input that is there into batches; those whose rows are stored need no replica."""
    while not enough_pending(state) and (rows := _next_batch_rows(state)):
        taken = [edge.take(rows) for edge in state.next_inputs]
        if state.converging is not None:
            state.converging.take(rows)
        slices = tuple(tuple(pieces) for pieces, _ in taken)
        key = batch_key([digests for _, digests in taken])
        run = Run(state.new_place(), state.offset, rows, slices)
        state.offset += rows
        found = state.stored.take(key)
        if found is None:
            state.pending.append(Batch((run,), key))
            continue
        _reuse_batch(state, blocks, Batch((run,), key), found)


def look_again_for_batches(state: StepState, blocks: Blocks) -> None:
    """More is stored than when batches were looked up that nobody has begun to compute."""
    pending = list(state.pending)
    state.pending.clear()
    for batch in pending:
        found = state.stored.take(batch.key) if batch.purpose is Purpose.COMPUTE else None
        if found is None:
            state.pending.append(batch)
        else:
            _reuse_batch(state, blocks, batch, found)


def _reuse_batch(state: StepState, blocks: Blocks, batch: Batch, found: StoredRows) -> None:
    (run,) = batch.runs
    state.counters.rows_in += run.rows
    reuse(state, blocks, run.place, found)
    if is_checked(batch.key, state.spec.check_share):
        state.pending.append(Batch(batch.runs, batch.key, Purpose.CHECK, (found,)))
    else:
        release(blocks, run)


def reuse(state: StepState, blocks: Blocks, place: int, found: StoredRows) -> None:
    """Let stored rows be the output for a place."""
    state.counters.rows_reused += found.rows
    emit(state, blocks, place, blocks.stored(state.spec.name, found))


def release(blocks: Blocks, run: Run) -> None:
    """Nobody will read a run's input for this step again."""
    for pieces in run.slices:
        blocks.done(pieces)


def is_checked(key: bytes | memoryview, share: float) -> bool:
    """Whether a stored unit is among those that are computed again to compare: the same ones in each run."""
    return int.from_bytes(key[:4], "big") < share * (1 << 32)


def _next_batch_rows(state: StepState) -> int:
    """Rows of the next batch; 0: it is not there yet, or there is none."""
    if state.converging is not None:
        edges = state.converging.edges()
        wanted = min(state.converging.at_most(), state.spec.batch_size)
        return wanted if edges and min(edge.rows for edge in edges) >= wanted else 0
    available = min(edge.rows for edge in state.inputs)
    ended = all(edge.ended for edge in state.inputs)
    if state.spec.kind == "global":
        return available if ended else 0
    if ended or available >= state.spec.batch_size:
        return min(available, state.spec.batch_size)
    return 0


def length_mismatch(state: StepState) -> Failure | None:
    """Why rows of several predecessors cannot be joined, if they cannot."""
    if not all(edge.closed for edge in state.inputs):
        return None
    if state.converging is not None:
        return state.converging.mismatch(state.spec.name)
    totals = [edge.total / state.spec.stride(number) for number, edge in enumerate(state.inputs)]
    if max(totals) == min(totals):
        return None
    longest = state.inputs[totals.index(max(totals))]
    shortest = state.inputs[totals.index(min(totals))]
    return Failure(
        state.spec.name,
        f"its predecessors are joined row by row, but '{longest.producer}' gave {longest.total} "
        f"rows and '{shortest.producer}' gave {shortest.total}. Let steps that change the number "
        "of rows come after the join, or before the branches part.",
    )


def rows_failed(
    state: StepState, failed: Sequence[FailedRows], steps: Mapping[str, StepState]
) -> Failure | None:
    """Take in rows that failed; say so if others do not belong together any more since they are left out."""
    is_first = bool(failed) and not state.failed
    state.failed += failed
    if not is_first or not state.spec.leaves_out:
        return None
    problems = (_shifted_rows(each, state.spec.name, steps) for each in steps.values())
    return next((problem for problem in problems if problem is not None), None)


def _shifted_rows(state: StepState, lacking: str, steps: Mapping[str, StepState]) -> Failure | None:
    """Why rows of several predecessors do not belong together: a step left some out that is above a few only.

    Others may lack as many rows, so that their numbers would not tell.
    """
    below = [lacking in upwards(edge.producer, steps, _keeps_order) for edge in state.inputs]
    if all(below) or not any(below):
        return None
    return Failure(
        state.spec.name,
        f"its predecessors are joined row by row, but '{lacking}', which is not above all of them, left out "
        "rows that failed. Let it keep their places with on_error='null', or let the branches part after it.",
    )


def _keeps_order(state: StepState) -> bool:
    """Whether rows that are missing in a step's input are missing from what it gives, in their order."""
    return state.spec.kind != "global"


def upwards(
    step: str, steps: Mapping[str, StepState], through: Callable[[StepState], bool] | None = None
) -> Iterator[str]:
    """A step, and all that its rows come from as far as they run, each once.

    Args:
        step: the step's name.
        steps: those that run; one that does not ends its way.
        through: whether it goes on above a step; None: above each.
    """
    seen, waiting = {step}, [step]
    while waiting:
        name = waiting.pop()
        yield name
        state = steps.get(name)
        if state is not None and (through is None or through(state)):
            above = [each for each in state.spec.predecessors if each not in seen]
            seen.update(above)
            waiting += above


def lacks_rows(step: str, steps: Mapping[str, StepState]) -> bool:
    """Whether rows failed in a running step, or in one above it: its output is not what it could be."""
    return any(name in steps and bool(steps[name].failed) for name in upwards(step, steps))
