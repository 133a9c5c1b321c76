"""How rows flow through a step: from its predecessors into batches, from its units to the steps that follow.

Units that an earlier run stored are taken over on the way.
"""

from __future__ import annotations

import math

from distill_ray.cache.units import StoredRows, batch_key, end_key, offset_key
from distill_ray.engine.blocks import Blocks, Piece
from distill_ray.engine.messages import Failure
from distill_ray.engine.step_state import Batch, StepSpec, StepState

ROWS_AHEAD = 100_000
"""Rows of an earlier run's output that wait for a step: 16 bytes each in the driver."""


def rows_ahead(spec: StepSpec) -> float:
    """How many rows of an earlier run's output may wait for a step; a global step is given all at once."""
    return math.inf if spec.kind == "global" else max(ROWS_AHEAD, 2 * spec.batch_size)


def emit(state: StepState, blocks: Blocks, unit: int, piece: Piece) -> None:
    """Take in the rows of a unit, and hand on what is now next in the output's order."""
    for emitted in state.resolve(unit, piece):
        for edge in state.outputs:
            blocks.need(emitted.slice)
            edge.push(emitted)


def look_up_offsets(state: StepState, blocks: Blocks) -> None:
    """Take over what earlier runs know of a generator's rows, up to the first gap."""
    if state.replicas or state.ended:
        return
    while (found := state.stored.take(offset_key(state.offset))) is not None:
        _reuse(state, blocks, state.new_unit(), found)
        state.offset += found.rows
    state.ended = state.stored.take(end_key(state.offset)) is not None


def form_batches(state: StepState, blocks: Blocks) -> Failure | None:
    """Cut the input that is there into batches; those whose rows are stored need no replica.

    Returns:
        Why no more can be formed ever, if the predecessors do not fit together.
    """
    enough = 2 * state.pace.batches * state.spec.replicas + 1
    while len(state.pending) < enough and (rows := _next_batch_rows(state)):
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
            blocks.done(pieces)
        _reuse(state, blocks, batch.unit, found)
    return _length_mismatch(state)


def _reuse(state: StepState, blocks: Blocks, unit: int, found: StoredRows) -> None:
    state.counters.rows_reused += found.rows
    emit(state, blocks, unit, blocks.stored(state.spec.name, found))


def _next_batch_rows(state: StepState) -> int:
    """Rows of the next batch; 0: it is not there yet, or there is none."""
    available = min(edge.rows for edge in state.inputs)
    ended = all(edge.closed for edge in state.inputs)
    if state.spec.kind == "global":
        return available if ended else 0
    if ended or available >= state.spec.batch_size:
        return min(available, state.spec.batch_size)
    return 0


def _length_mismatch(state: StepState) -> Failure | None:
    if not all(edge.closed for edge in state.inputs):
        return None
    longest = max(state.inputs, key=lambda edge: edge.total)
    shortest = min(state.inputs, key=lambda edge: edge.total)
    if longest.total == shortest.total:
        return None
    return Failure(
        state.spec.name,
        f"its predecessors are joined row by row, but '{longest.producer}' gave {longest.total} "
        f"rows and '{shortest.producer}' gave {shortest.total}. Let steps that change the number "
        "of rows come after the join, or before the branches part.",
    )
