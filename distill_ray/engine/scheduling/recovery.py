"""What becomes of a lost replica's work: done by others, and what it made is saved, or made again.

A replica dies with its process or with its node. Calls that it had under way are given to others. Rows that
it had made are looked for among its parts; those that are in none are written by another replica while they
are still in memory, and are made again where they are not. If they come out differently then, other steps may
have gone on with rows that nobody can store: the run is planned anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.actions import Action, FindParts, SendWork
from distill_ray.engine.messages import (
    Failure,
    PartsFound,
    Purpose,
    ReplicaLost,
    RowsLost,
    Work,
    WorkDone,
    WorkRecord,
)
from distill_ray.engine.scheduling.batches import MAX_DEATHS, Batch
from distill_ray.engine.scheduling.blocks import Blocks
from distill_ray.engine.scheduling.poison import GO_ON, LESS_MEMORY, charged, left, try_again, why_not_again
from distill_ray.engine.scheduling.replicas import relieve, start_joining
from distill_ray.engine.scheduling.sending import send_work
from distill_ray.engine.scheduling.step_state import Phase, StepState, Unsaved


def replica_lost(state: StepState, event: ReplicaLost, blocks: Blocks) -> Failure | None:
    """Take back all that a replica had; return why the run cannot go on, if it cannot."""
    state.replicas.remove(event.replica)
    problem = _take_calls_back(state, event, blocks)
    blocks.forsake(state.spec.name, event.replica)
    orphans = {block: made for block, made in state.unsaved.items() if made.replica == event.replica}
    for block, made in orphans.items():
        del state.unsaved[block]
        state.orphans[block] = made
        _need(made.batches, blocks)
    if orphans:
        state.to_search.append(event.replica)
        if state.phase is Phase.FLUSHING:
            state.phase = Phase.RUNNING
    if problem is None and state.deaths > MAX_DEATHS * state.spec.replicas:
        return _gone(state, event)
    return problem


def _take_calls_back(state: StepState, event: ReplicaLost, blocks: Blocks) -> Failure | None:
    """Let others do what the replica was to do; its death is put down to the calls that were running."""
    taken = {block: call for block, call in state.calls.items() if call[0] == event.replica}
    batches: list[Batch] = []
    problem: Failure | None = None
    for number, (block, (_, of_call)) in enumerate(taken.items()):
        del state.calls[block]
        state.early.pop(block, None)
        state.returned.pop(block, None)
        # The others were queued behind these.
        was_running = number < state.spec.batches_at_once
        now = [charged(batch, event) for batch in of_call] if was_running else list(of_call)
        if block not in state.orphans:
            blocks.give_up(block)
            batches += now
        elif now:
            state.orphans[block] = replace(state.orphans[block], batches=tuple(now))
            found = (why_not_again(state, batch) for batch in now)
            problem = problem or next((each for each in found if each is not None), None)
    if not event.with_node and not any(of_call for _, of_call in taken.values()):
        state.deaths += 1
    return try_again(state, batches) or problem


def _gone(state: StepState, event: ReplicaLost) -> Failure:
    where, remedy = "at no batch", "What does it do as it loads, or in threads of its own?"
    if state.spec.kind == "generator":
        where, remedy = f"after {state.offset:,} rows", "What do process() and load() do there?"
    if event.out_of_memory:
        remedy = LESS_MEMORY
    message = (
        f"{state.deaths} processes died in a row, {where}: the last one {event.reason}. {remedy} {GO_ON}"
    )
    return Failure(event.step, message, event.detail)


def rows_lost(steps: Mapping[str, StepState], event: RowsLost, blocks: Blocks) -> None:
    """Rows in memory are gone: they are read from their parts from now on, or saved or made again first."""
    for block in event.blocks:
        if blocks.lose(block):
            steps[blocks.step_of(block)].lost.add(block)
    state = steps[event.step]
    if event.call is None:
        state.asked_for_keys.difference_update(event.blocks)
    elif event.replica is not None and event.replica in state.replicas and event.call in state.calls:
        state.replicas.returned(event.replica)
        _, batches = state.calls.pop(event.call)
        if event.call not in state.orphans:
            blocks.give_up(event.call)
            try_again(state, batches)


def reported(state: StepState, replica: int, parts: Sequence[WrittenPart], blocks: Blocks) -> None:
    """A replica says which parts it has written."""
    unfinished = state.replicas[replica].unfinished
    for part in parts:
        whole = tuple(each for each in part.blocks if each[0] not in unfinished)
        parts_written(state, [WrittenPart(part.entry, whole)], blocks)


def parts_written(state: StepState, parts: Sequence[WrittenPart], blocks: Blocks) -> None:
    """Rows have reached the storage: nobody's death can take them any more."""
    for part in parts:
        state.parts.add(part.entry.name)
        for block, first_row in part.blocks:
            written = WrittenPart(part.entry, ((block, first_row),))
            if block in state.orphans and block in state.calls:
                state.early[block] = written
                continue
            blocks.written(written)
            state.unsaved.pop(block, None)
            state.lost.discard(block)
            if (made := state.orphans.pop(block, None)) is not None:
                _done(made.batches, blocks)


def parts_found(state: StepState, event: PartsFound, blocks: Blocks) -> None:
    """Find a lost replica's rows in parts that it did not come to speak of, by their digests.

    Beside them may stand rows of calls that did not return; calls that ran together ended in any order.
    """
    state.searched.discard(event.replica)
    waiting: dict[bytes, list[int]] = {}
    for block, made in state.orphans.items():
        if made.replica == event.replica and made.digests:
            waiting.setdefault(made.digests[:DIGEST_SIZE], []).append(block)
    for entry, index in event.parts:
        if entry.name not in state.parts and not index.replaces:
            found = tuple(_found_in(index.digests, waiting, state.orphans))
            parts_written(state, [WrittenPart(entry, found)], blocks)


def _found_in(
    digests: bytes, waiting: Mapping[bytes, list[int]], orphans: Mapping[int, Unsaved]
) -> Iterator[tuple[int, int]]:
    """The blocks whose rows stand in a part, each with its first row there; they wait no more.

    Args:
        digests: 16 bytes for each row of the part.
        waiting: blocks by the digest of their first row.
        orphans: what is known of them.
    """
    start = 0
    while start < len(digests):
        begin_alike = waiting.get(digests[start : start + DIGEST_SIZE], [])
        block = next((each for each in begin_alike if digests.startswith(orphans[each].digests, start)), None)
        if block is None:
            start += DIGEST_SIZE
            continue
        yield block, start // DIGEST_SIZE
        begin_alike.remove(block)
        start += len(orphans[block].digests)


def recover(state: StepState, blocks: Blocks) -> Iterator[Action]:
    """Have saved what lost replicas made, once it is known what they had written."""
    while state.to_search:
        replica = state.to_search.pop()
        state.searched.add(replica)
        yield FindParts(state.spec.name, replica)
    state.makes_again = False
    makers = {state.unsaved[block].replica for block in state.lost if block in state.unsaved}
    yield from relieve(state, makers)  # whoever of them lives may have them in parts soon
    if state.searched:
        return
    for block in [block for block in state.orphans if block not in state.calls]:
        if blocks.is_live(block):
            yield from _keep(state, block)
        else:
            yield from _make_again(state, block, blocks)


def _keep(state: StepState, block: int) -> Iterator[Action]:
    """Have rows that are in memory written by the replica without a step: it is there soon."""
    yield from start_joining(state)
    replica = state.free_replica(joins=True)
    if replica is not None:
        state.call(replica, block, ())
        work = Work(block, sources=(None,), purpose=Purpose.KEEP)
        yield SendWork(state.spec.name, replica, work, (block,))


def _make_again(state: StepState, block: int, blocks: Blocks) -> Iterator[Action]:
    batches = state.orphans[block].batches
    if not batches or not are_there(batches, blocks):
        return
    joins = not batches[0].purpose.needs_step
    if joins:
        yield from start_joining(state)
    else:
        state.makes_again = True
    replica = state.free_replica(batches, joins=joins)
    if replica is not None:
        state.call(replica, block, batches)
        yield send_work(state.spec.name, replica, block, batches, blocks)


def are_there(batches: Sequence[Batch], blocks: Blocks) -> bool:
    """Whether all rows of batches can be read."""
    return all(blocks.is_there(piece.block) for batch in batches for piece in batch.slices)


def beyond_recovery(state: StepState, blocks: Blocks) -> Failure | None:
    """Why rows of a generator that were lost cannot be made again by themselves, if there are any."""
    if state.spec.kind != "generator" or not state.lost or not state.all_searched:
        return None
    if all(block not in state.orphans or blocks.is_there(block) for block in state.lost):
        return None
    return _differently(state, "cannot be made again by themselves")


def recovered(state: StepState, event: WorkDone, blocks: Blocks) -> Failure | None:
    """Rows of a lost replica are in the hands of another; say why the run must be planned anew, if so."""
    made = state.orphans[event.block]
    _, batches = state.calls.pop(event.block)
    record = event.record
    if record.stuck and record.batches < len(batches):
        return _stuck_again(state, event, batches)
    if record.failure is not None:
        return None
    state.counters.seconds += record.seconds
    if batches:
        if not _is_same(made, record):
            return _differently(state, "came out differently when they were made again")
        blocks.made(event.block, record.nbytes, event.replica, record.digests)
        state.lost.discard(event.block)
    del state.orphans[event.block]
    _done(made.batches, blocks)
    state.unsaved[event.block] = replace(made, replica=event.replica)
    if (written := state.early.pop(event.block, None)) is not None:
        parts_written(state, [written], blocks)
    return None


def _stuck_again(state: StepState, event: WorkDone, batches: Sequence[Batch]) -> Failure | None:
    """Something of what a lost replica had done takes too long now: all of it is made again once more."""
    state.replicas.leave(event.replica, stuck=event.record.stuck)
    state.replicas.left_unfinished(event.replica, event.block)
    state.early.pop(event.block, None)
    rest = left(event.record, batches)
    again = (*batches[: event.record.batches], *rest)
    state.orphans[event.block] = replace(state.orphans[event.block], batches=again)
    return why_not_again(state, rest[0])


def _is_same(made: Unsaved, record: WorkRecord) -> bool:
    return made.counts == record.counts and made.digests == record.digests


def _differently(state: StepState, what: str) -> Failure:
    message = f"rows that were lost with a node before they were stored {what}"
    return Failure(state.spec.name, message, damaged=True)


def _need(batches: Sequence[Batch], blocks: Blocks) -> None:
    for batch in batches:
        for piece in batch.slices:
            blocks.need(piece)


def _done(batches: Sequence[Batch], blocks: Blocks) -> None:
    for batch in batches:
        blocks.done(batch.slices)
