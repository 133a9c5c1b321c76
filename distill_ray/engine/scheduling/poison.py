"""Batches at which processes die: tried again, halved until the row is found, and then given up.

A process that dies is charged to the batch that it was at. What has cost `MAX_DEATHS` of them is sent in
halves where the step is row-wise, one more death halves these again, and a single row has to kill twice by
itself.
Such a row follows the step's ``on_error``, as one that raises does; so does a whole batch of other steps.

Where memory was full, Ray ends whichever process started last: its rows are halved, since fewer of them need
less memory, but they are never left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from distill_ray.engine.messages import Failure, Purpose, ReplicaLost, WorkDone, WorkRecord
from distill_ray.engine.scheduling.batches import MAX_DEATHS, MAX_LOSSES, Batch, Run
from distill_ray.engine.scheduling.blocks import Blocks, Slice
from distill_ray.engine.scheduling.row_flow import release
from distill_ray.engine.scheduling.step_state import StepState

MAX_GIVEN_UP = 5
"""Rows that may be given up with nothing done in between: beyond that it is not the rows."""

GO_ON = "Run again to go on: what is stored is not computed again."

LESS_MEMORY = (
    "Declare what a replica needs in StepResources(memory=...), so that fewer of them share a node, run "
    "fewer replicas, or make batches smaller."
)


def charged(batch: Batch, event: ReplicaLost) -> Batch:
    """The batch, with a loss put down to it."""
    if event.with_node:
        return replace(batch, losses=batch.losses + 1)
    starved = batch.starved or event.out_of_memory
    return replace(
        batch, deaths=batch.deaths + 1, deaths_of=(*batch.deaths_of, event.reason), starved=starved
    )


def handed_in(state: StepState, event: WorkDone, blocks: Blocks) -> tuple[tuple[Batch, ...], Failure | None]:
    """The batches that a call has dealt with; those that it did not come to are tried again.

    A replica in which something does not come back is replaced.
    """
    _, batches = state.calls.pop(event.block)
    problem: Failure | None = None
    if event.record.stuck:
        state.replicas.leave(event.replica, stuck=event.record.stuck)
        problem = try_again(state, left(event.record, batches))
        batches = batches[: event.record.batches]
        if not batches:
            blocks.give_up(event.block)
    for batch in batches:
        for run in batch.runs:
            release(blocks, run)
    return batches, problem


def left(record: WorkRecord, batches: Sequence[Batch]) -> Sequence[Batch]:
    """What a call did not do, of which the first was maybe what took too long."""
    rest = list(batches[record.batches :])
    if record.overdue:
        rest[0] = replace(rest[0], deaths=rest[0].deaths + 1, deaths_of=(*rest[0].deaths_of, record.stuck))
    return rest


def try_again(state: StepState, batches: Sequence[Batch]) -> Failure | None:
    """Have batches tried again: as they are, in halves, or without calling the step; or say why not."""
    again: list[Batch] = []
    problem: Failure | None = None
    for batch in batches:
        if batch.deaths >= MAX_DEATHS and _can_be_halved(state, batch):
            again += _halves(state, batch)
        elif (found := why_not_again(state, batch)) is not None:
            problem = problem or found
        elif batch.deaths >= MAX_DEATHS:
            again.append(replace(batch, purpose=Purpose.GIVE_UP, deaths=0, reason=_what_happened(batch)))
            state.given_up += 1
            if state.given_up >= MAX_GIVEN_UP:
                problem = problem or _not_the_rows(state, batch)
        else:
            again.append(batch)
    for batch in reversed(again):
        state.pending_of(batch.purpose).appendleft(batch)
    return problem


def why_not_again(state: StepState, batch: Batch) -> Failure | None:
    """Why the run cannot go on with a batch that cannot be halved, or not any more."""
    rows = batch.first_row, batch.end_row
    if batch.losses >= MAX_LOSSES:
        lost = f"{batch.losses} replicas that were to compute these rows were lost with their nodes. {GO_ON}"
        return Failure(state.spec.name, lost, rows=rows)
    if batch.deaths < MAX_DEATHS:
        return None
    if batch.starved:
        remedy = f"{LESS_MEMORY} {GO_ON}"
    elif batch.purpose is not Purpose.COMPUTE or state.spec.on_error == "raise":
        remedy = f"{GO_ON} With on_error='skip' or 'null' a run goes on without such rows."
    else:
        return None
    return Failure(state.spec.name, f"{_what_happened(batch)}. {remedy}", rows=rows)


def _can_be_halved(state: StepState, batch: Batch) -> bool:
    return state.spec.columns is not None and batch.purpose is Purpose.COMPUTE and batch.rows > 1


def _halves(state: StepState, batch: Batch) -> list[Batch]:
    """The batch's rows as two; their output rows stay in order."""
    middle, start = batch.rows // 2, 0
    first: list[Run] = []
    second: list[Run] = []
    for run in batch.runs:
        end = start + run.rows
        if end <= middle:
            first.append(run)
        elif start >= middle:
            second.append(run)
        else:
            before, after = _cut(state, run, middle - start)
            first.append(before)
            second.append(after)
        start = end
    return [_half(batch, first), _half(batch, second)]


def _half(batch: Batch, runs: Sequence[Run]) -> Batch:
    half = replace(batch, runs=tuple(runs))
    return replace(half, deaths=MAX_DEATHS - (2 if half.rows == 1 else 1))


def _cut(state: StepState, run: Run, rows: int) -> tuple[Run, Run]:
    """A run's first rows, and those after them, which get a place of their own."""
    cuts = [_cut_slices(slices, rows * state.spec.stride(number)) for number, slices in enumerate(run.slices)]
    before = Run(run.place, run.first_row, rows, tuple(first for first, _ in cuts))
    place = state.place_after(run.place)
    return before, Run(place, run.first_row + rows, run.rows - rows, tuple(second for _, second in cuts))


def _cut_slices(slices: Sequence[Slice], rows: int) -> tuple[tuple[Slice, ...], tuple[Slice, ...]]:
    first: list[Slice] = []
    second: list[Slice] = []
    for each in slices:
        here = min(each.rows, max(0, rows))
        if here:
            first.append(Slice(each.block, each.start, here))
        if here < each.rows:
            second.append(Slice(each.block, each.start + here, each.rows - here))
        rows -= each.rows
    return tuple(first), tuple(second)


def _what_happened(batch: Batch) -> str:
    """Say how many processes died at a batch, and of what; the last of each kind stands for all."""
    where = "this row" if batch.rows == 1 else "these rows"
    last = {reason.partition(" (")[0]: reason for reason in batch.deaths_of}
    counted = Counter(reason.partition(" (")[0] for reason in batch.deaths_of).most_common()
    what = "; ".join(f"{count} of them {last[kind]}" for kind, count in counted)
    if len(counted) == 1:
        what = f"each of them {next(iter(last.values()))}"
    return f"{len(batch.deaths_of)} processes were lost at {where}: {what}"


def _not_the_rows(state: StepState, batch: Batch) -> Failure:
    unit = "rows" if state.spec.columns is not None else "batches"
    return Failure(
        state.spec.name,
        f"{MAX_GIVEN_UP} {unit} one after the other killed each process that tried them, and nothing was "
        "done in between: it seems that every row does, whatever it holds. Of the last one: "
        f"{_what_happened(batch)}. Mend what they have in common (a device, a library, memory). {GO_ON}",
        rows=(batch.first_row, batch.end_row),
    )
