"""Which replica is called next, and with how much: as much as replicas take and memory holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from distill_ray.engine.actions import Action, SendWork
from distill_ray.engine.messages import Work
from distill_ray.engine.scheduling.batches import Batch
from distill_ray.engine.scheduling.blocks import Blocks
from distill_ray.engine.scheduling.recovery import are_there
from distill_ray.engine.scheduling.replicas import relieve_all, start_joining
from distill_ray.engine.scheduling.sending import send_work
from distill_ray.engine.scheduling.step_state import StepState


def compute(state: StepState, blocks: Blocks) -> Iterator[Action]:
    """Have the replicas of a step that are there do what is pending."""
    state.lacks_input = bool(state.pending) and not are_there([state.pending[0]], blocks)
    if state.to_join:
        yield from start_joining(state)
    yield from _dispatch(state, blocks)
    yield from _dispatch_joins(state, blocks)


def _dispatch(state: StepState, blocks: Blocks) -> Iterator[Action]:
    while state.pending:
        if blocks.are_full(state.spec.name):
            yield from relieve_all(state)
            return
        replica = state.free_replica([state.pending[0]])
        if replica is None or not are_there([state.pending[0]], blocks):
            return
        at_once = state.spec.batches_at_once
        more_to_come = not state.input_ended and state.replicas[replica].calls >= at_once
        if len(state.pending) < state.pace.batches and more_to_come:
            return
        share = -(-len(state.pending) // (state.replicas.ready * at_once))
        yield _send(state, blocks, replica, state.pending, min(state.pace.batches, share))


def _dispatch_joins(state: StepState, blocks: Blocks) -> Iterator[Action]:
    while state.to_join and (replica := state.free_replica(joins=True)) is not None:
        if blocks.are_full(state.spec.name):
            yield from relieve_all(state)
            return
        if not are_there([state.to_join[0]], blocks):
            return
        yield _send(state, blocks, replica, state.to_join, 1)


def _send(state: StepState, blocks: Blocks, replica: int, pending: deque[Batch], at_most: int) -> SendWork:
    """Call a replica with the next batches of one purpose; one that a replica died at goes by itself."""
    batches = [pending.popleft()]
    while len(batches) < at_most and pending and _goes_with(pending[0], batches[0], blocks):
        batches.append(pending.popleft())
    block = blocks.new(state.spec.name)
    state.call(replica, block, batches)
    return send_work(state.spec.name, replica, block, batches, blocks)


def _goes_with(batch: Batch, first: Batch, blocks: Blocks) -> bool:
    alone = batch.deaths or first.deaths
    alike = batch.purpose is first.purpose and len(batch.runs[0].slices) == len(first.runs[0].slices)
    return alike and not alone and are_there([batch], blocks)


def advance(state: StepState, blocks: Blocks) -> Iterator[Action]:
    """Have a generator go on."""
    if state.spec.max_batches and state.counters.batches_computed >= state.spec.max_batches:
        state.ended = True
        return
    while True:
        if blocks.are_full(state.spec.name):
            yield from relieve_all(state)
            return
        replica = state.free_replica()
        if replica is None or (state.spec.max_batches and state.calls):
            return
        block = blocks.new(state.spec.name)
        state.call(replica, block, ())
        at_most = state.spec.max_batches or state.pace.batches
        work = Work(block, offset=state.offset, max_batches=at_most)
        yield SendWork(state.spec.name, replica, work)
