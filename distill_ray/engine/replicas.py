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
from distill_ray.engine.step_state import Phase, StepState


def start_replicas(state: StepState) -> Iterator[Action]:
    """Start those that are not there, or not any more; a generator or a global step has one."""
    count = 1 if state.spec.kind != "step" else state.spec.replicas
    for _ in range(count - state.replicas.computing):
        yield _start(state, joins=False)


def start_joining(state: StepState) -> Iterator[Action]:
    """Start the replica without the step, which handles rows that are made already, unless it is there."""
    if not state.replicas.joins:
        yield _start(state, joins=True)


def _start(state: StepState, *, joins: bool) -> StartReplica:
    return StartReplica(state.spec.name, state.replicas.start(joins=joins), joins=joins)


def relieve(state: StepState, replicas: Collection[int]) -> Iterator[Action]:
    """Have those replicas that are idle write what they have made."""
    for number in state.replicas.idle:
        if number in replicas:
            state.replicas.told_to_flush(number, for_good=False)
            yield FlushReplica(state.spec.name, number)


def relieve_all(state: StepState) -> Iterator[Action]:
    """Have all that hold rows which are in no part yet write them, so that they can be let go."""
    yield from relieve(state, {made.replica for made in state.unsaved.values()})


def make_room(state: StepState) -> None:
    """Let replicas that have nothing to do go, for a step that has no place; they come back when needed."""
    if state.spec.kind == "step" and state.phase is Phase.RUNNING and not state.pending:
        for number in state.replicas.idle:
            if not state.replicas[number].joins:
                state.replicas.leave(number)


def let_go(state: StepState) -> Iterator[Action]:
    """End replicas that are leaving, once they have written all; others take the place of stuck ones."""
    for number in state.replicas.leaving:
        if state.replicas[number].calls:
            continue
        if state.replicas[number].flushed:
            yield _end(state, number)
            if state.replicas.remove(number).stuck and state.pending:
                yield from start_replicas(state)
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
