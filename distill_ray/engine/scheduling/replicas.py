"""What happens to a step's replicas: started, told to write what they hold, ended.

Each function says what to do, and takes it as under way from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from distill_ray.engine.actions import (
    AbandonReplica,
    Action,
    CommitOutput,
    FlushReplica,
    KillReplica,
    StartReplica,
    StopReplica,
)
from distill_ray.engine.scheduling.room import Place
from distill_ray.engine.scheduling.step_state import Phase, StepState


def start_replica(state: StepState, place: Place | None) -> StartReplica:
    """Start one more, where a place was chosen for it."""
    number = state.replicas.start(joins=False, place=place)
    return StartReplica(state.spec.name, number, place=place or ())


def start_joining(state: StepState) -> Iterator[Action]:
    """Start the replica without the step, which handles rows that are made already, unless it is there."""
    if not state.replicas.joins:
        yield StartReplica(state.spec.name, state.replicas.start(joins=True), joins=True)


def relieve(state: StepState, replicas: Collection[int]) -> Iterator[Action]:
    """Have those replicas that are idle write what they have made."""
    for number in state.replicas.idle:
        if number in replicas:
            state.replicas.told_to_flush(number, for_good=False)
            yield FlushReplica(state.spec.name, number)


def relieve_all(state: StepState) -> Iterator[Action]:
    """Have all that hold rows which are in no part yet write them, so that they can be let go."""
    yield from relieve(state, {made.replica for made in state.unsaved.values()})


def let_go(state: StepState) -> Iterator[Action]:
    """End replicas that are leaving, once they have written all."""
    for number in state.replicas.leaving:
        if state.replicas[number].calls:
            continue
        if state.replicas[number].flushed:
            yield _end(state, number)
            state.replicas.remove(number)
        else:
            state.replicas.told_to_flush(number, for_good=True)
            yield FlushReplica(state.spec.name, number)


def flush_replicas(state: StepState) -> Iterator[Action]:
    """Have all of them write what is left, once no call is under way."""
    if not state.calls:
        yield from flush_idle(state)


def flush_idle(state: StepState) -> Iterator[Action]:
    """Have those that are done write what is left, while others are still at their calls."""
    if state.phase in (Phase.COMMITTING, Phase.DONE):
        return
    for number in state.replicas.idle:
        state.replicas.told_to_flush(number, for_good=True)
        yield FlushReplica(state.spec.name, number)


def commit(state: StepState) -> Iterator[Action]:
    """Once all rows are stored: write the manifest, and give the replicas' resources back."""
    for number in state.replicas.not_ready:
        state.replicas.remove(number)
        yield AbandonReplica(state.spec.name, number)
    if state.replicas.all_flushed:
        state.phase = Phase.COMMITTING
        yield CommitOutput(state.spec.name)
        for number in state.replicas:
            yield _end(state, number)


def _end(state: StepState, number: int) -> StopReplica | KillReplica:
    if stuck := state.replicas[number].stuck:
        return KillReplica(state.spec.name, number, stuck)
    return StopReplica(state.spec.name, number)
