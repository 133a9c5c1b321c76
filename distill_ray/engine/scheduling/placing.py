"""Which step gets a place for a replica, and which gives one back, where there are fewer than are wanted.

1. Every step with rows to work on gets its fewest replicas before any gets more. Among those that wait, the
   one furthest down the graph comes first, so that rows are used up before others are made.
2. A step that lacks these takes room from replicas that are more than the fewest of their steps, after their
   current calls, and from idle ones: at once where all rows of their step came, or come from a step without a
   place; else after a minute. One that is at work and is among the fewest is never taken away.
3. Further replicas start where there is room, and where others have been idle for a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from distill_ray.engine.actions import AbandonReplica, Action, AskForNodes
from distill_ray.engine.scheduling.giving import IDLE_SECONDS, Urgency, cheapest, givers, is_done, may_give
from distill_ray.engine.scheduling.pool import Replica
from distill_ray.engine.scheduling.replicas import start_replica
from distill_ray.engine.scheduling.room import Amounts, Place, Room, fit_together
from distill_ray.engine.scheduling.step_state import Phase, StepState

TAKEN_SECONDS = 30.0
"""How long a node counts as full after a replica found no room there: others on the cluster hold it."""

ANYWHERE: Place = ()
"""Where the only replica of a step is that waits for Ray to find room: no node is known to have any."""


@dataclass
class _Market:
    """What is free now, and what will be once those have gone that are to go."""

    room: Room
    later: Room


class Placing:
    """Gives places to the steps of a run; looks at all of them only when it may matter to one that waits.

    Args:
        steps: each after those it takes rows from.
        changed: is told of steps that have something to do then.

    Attributes:
        due: `decide` may have something to say.
    """

    def __init__(self, steps: Mapping[str, StepState], changed: Callable[[str], None]) -> None:
        self._steps = steps
        self._changed = changed
        self._depths: dict[str, int] = {}
        self._ancestors: dict[str, set[str]] = {}
        for name, state in steps.items():
            above = [p for p in state.spec.predecessors if p in steps]
            self._depths[name] = 1 + max((self._depths[p] for p in above), default=0)
            self._ancestors[name] = {*above}.union(*(self._ancestors[p] for p in above))
        self._nodes: dict[str, Amounts] | None = None
        self._taken: dict[str, Amounts] = {}
        self._taken_for = 0.0
        self._lacking: dict[str, int] = {}
        self._queued: dict[str, int] = {}
        self._homeless: list[tuple[StepState, int]] = []
        self._noted: dict[str, tuple[object, ...]] = {}
        self._refused: set[str] = set()
        self._asked: tuple[tuple[str, Amounts], ...] = ()
        self._urgent = False
        self.due = False

    # What happened.

    def seen(self, nodes: Mapping[str, Amounts], seconds: float) -> None:
        """Take in what each living node has in all, so many seconds after the last look."""
        self._nodes = dict(nodes)
        self._taken_for += seconds
        if self._taken_for > TAKEN_SECONDS:
            self._taken.clear()
        for state in self._steps.values():
            for number in state.replicas.unused:
                state.replicas[number].idle_seconds += seconds
            if state.spec.follows_backlog and state.phase is Phase.RUNNING:
                self._shrink(state)
        self._refused.clear()
        self.due = bool(self._lacking or self._asked)

    def _shrink(self, state: StepState) -> None:
        idle = [n for n in state.replicas.unused if state.replicas[n].idle_seconds >= IDLE_SECONDS]
        for number in idle[: max(0, state.replicas.staying - state.spec.fewest)]:
            self._let_leave(state, number)

    def lost(self, place: Place | None) -> None:
        """A node is gone, or out of reach: nothing is put there until it is seen again."""
        for node in place or ():
            if self._nodes is not None:
                self._nodes.pop(node, None)

    def no_room(self, state: StepState, number: int) -> None:
        """A replica waits in vain for its place: others on the cluster hold it."""
        self._homeless.append((state, number))
        self.due = True

    def note(self, state: StepState) -> None:
        """Something has happened to a step: see whether it concerns the places."""
        name, pool = state.spec.name, state.replicas
        # Those that are leaving are still there: never more than may run.
        lacks = min(wanted(state) - pool.staying, _most(state) - pool.computing) + self._is_queued(state)
        if lacks > 0:
            self._lacking[name] = lacks
            self.due = self.due or name not in self._refused
        elif self._lacking.pop(name, 0):
            self.due = self.due or any(step == name for step, _ in self._asked)
        before = self._noted.get(name)
        standing = (len(pool), pool.staying, state.phase, is_done(state), pool.idle_count)
        if standing == before:
            return
        self._noted[name] = standing
        if before is None or standing[:-1] != before[:-1] or self._urgent:  # else who is idle does not matter
            self._refused.clear()
            self.due = self.due or bool(self._lacking)

    def _is_queued(self, state: StepState) -> bool:
        """Whether the only replica of a step waits for Ray to find a place for it."""
        number = self._queued.get(state.spec.name)
        if number is None:
            return False
        replica = state.replicas.get(number)
        if replica is not None and replica.place == ANYWHERE and not replica.ready:
            return True
        del self._queued[state.spec.name]
        return False

    # What to do.

    def warm_up(self, states: list[StepState]) -> Iterator[Action]:
        """Start the replicas of steps, where those of all steps of the run find room at the same time."""
        counts = {name: _at_first(state) for name, state in self._steps.items()}
        replicas = [state.spec.bundles for name, state in self._steps.items() for _ in range(counts[name])]
        if self._nodes is not None and not fit_together(replicas, self._nodes):
            return
        room = self._market().room
        for state in states:
            for _ in range(counts[state.spec.name] - state.replicas.computing):
                if self._nodes is None or not state.spec.bundles:
                    yield start_replica(state, None)
                elif (place := room.find(state.spec.bundles)) is not None:
                    yield self._start_on(place, state, room)

    def decide(self) -> Iterator[Action]:
        """Say who gets a place now, and who makes room."""
        self.due = self._urgent = False
        yield from self._turn_away()
        market = self._market()
        refused: set[str] = set()
        while waiting := [self._steps[name] for name in self._lacking if name not in refused]:
            state = min(waiting, key=lambda state: (self._urgency(state), -self._depths[state.spec.name]))
            if self._nodes is None or not state.spec.bundles:
                yield start_replica(state, None)
                self._placed_one(state)
            elif (place := market.room.find(state.spec.bundles)) is not None:
                yield from self._settle(state, market, place)
            else:
                yield from self._make_room(state, market)
                if market.room.find(state.spec.bundles) is None:
                    refused.add(state.spec.name)
        self._refused = refused
        lacking = [(self._steps[name].spec, count) for name, count in self._lacking.items()]
        asked = tuple((spec.name, b) for spec, count in lacking for _ in range(count) for b in spec.bundles)
        if asked != self._asked:
            self._asked = asked
            yield AskForNodes(asked)

    def _urgency(self, state: StepState) -> Urgency:
        has = state.replicas.staying - self._is_queued(state)
        if not has:
            return Urgency.NO_PLACE
        return Urgency.TOO_FEW if has < state.spec.fewest else Urgency.MORE

    def _settle(self, state: StepState, market: _Market, place: Place) -> Iterator[Action]:
        """A step has a place: for the replica that waits for any, or for a new one."""
        market.later.take(place, state.spec.bundles)
        if self._is_queued(state):
            market.room.take(place, state.spec.bundles)
            state.replicas[self._queued.pop(state.spec.name)].place = place
        else:
            yield self._start_on(place, state, market.room)
        self._placed_one(state)

    @staticmethod
    def _start_on(place: Place, state: StepState, room: Room) -> Action:
        room.take(place, state.spec.bundles)
        return start_replica(state, place)

    def _placed_one(self, state: StepState) -> None:
        name = state.spec.name
        self._lacking[name] -= 1
        if not self._lacking[name]:
            del self._lacking[name]

    def _make_room(self, state: StepState, market: _Market) -> Iterator[Action]:
        """Have others go for a step, if that makes room; the room is kept for it until they have gone."""
        urgency, bundles = self._urgency(state), state.spec.bundles
        self._urgent = self._urgent or urgency is not Urgency.MORE
        placeless = {n for n in self._lacking if self._urgency(self._steps[n]) is Urgency.NO_PLACE}
        may_go = [
            giver
            for name, other in self._steps.items()
            if may_give(other, state)
            for giver in givers(other, urgency, starved=not placeless.isdisjoint(self._ancestors[name]))
        ]
        nodes = self._nodes or {}
        found = cheapest(bundles, may_go, market.later, nodes)
        if found is None:
            return
        place, plan = found
        for giver in plan:
            held = giver.place, giver.state.spec.bundles
            market.later.give(*held)
            if giver.state.replicas[giver.number].ready:
                self._let_leave(giver.state, giver.number)
            else:
                giver.state.replicas.remove(giver.number)
                market.room.give(*held)
                self.note(giver.state)
                yield AbandonReplica(giver.state.spec.name, giver.number)
        if market.room.find(bundles) is None:
            market.room.take(place, bundles)
            market.later.take(place, bundles)

    def _let_leave(self, state: StepState, number: int) -> None:
        state.replicas.leave(number)
        self._changed(state.spec.name)

    def _turn_away(self) -> Iterator[Action]:
        """End replicas that found no room where they were sent; Ray may look for the only one of a step."""
        homeless, self._homeless = self._homeless, []
        for state, number in homeless:
            replica = state.replicas.get(number)
            if replica is None or replica.ready or not replica.place:
                continue
            for node, needs in zip(replica.place, state.spec.bundles, strict=True):
                self._note_taken(node, needs)
            state.replicas.remove(number)
            yield AbandonReplica(state.spec.name, number)
            if not state.replicas.staying:
                self._queued[state.spec.name] = state.replicas.started
                yield start_replica(state, ANYWHERE)
            self.note(state)

    def _note_taken(self, node: str, needs: Amounts) -> None:
        """All that this run's replicas do not hold of a node is taken by others, as far as can be told."""
        free = Room({node: (self._nodes or {}).get(node, {})})
        for state in self._steps.values():
            for replica in _holders(state):
                if replica.ready:
                    free.take(replica.place or (), state.spec.bundles)
        self._taken[node] = {name: amount for name, amount in free.left(node).items() if name in needs}
        self._taken_for = 0.0

    def _market(self) -> _Market:
        nodes = self._nodes or {}
        room, later = Room(nodes), Room(nodes)
        for node, amounts in self._taken.items():
            room.take((node,), [amounts])
            later.take((node,), [amounts])
        for state in self._steps.values():
            for replica in _holders(state):
                room.take(replica.place or (), state.spec.bundles)
                if not replica.leaving and state.phase is Phase.RUNNING:
                    later.take(replica.place or (), state.spec.bundles)
        return _Market(room, later)


def begin_stage(steps: Mapping[str, StepState], undone: Collection[str]) -> list[str]:
    """Let the steps of the next stage compute, once all of those before have ended; returns which begin."""
    stage = min((steps[name].spec.stage for name in undone), default=0)
    begin = [n for n, state in steps.items() if not state.has_begun and state.spec.stage <= stage]
    for name in begin:
        steps[name].has_begun = True
    return begin


def computes(state: StepState) -> bool:
    """Whether a step may compute now: its stage has begun, and no other run computes it."""
    return state.has_begun and not state.awaited


def wanted(state: StepState) -> int:
    """How many replicas a step could use now."""
    spec = state.spec
    if state.phase is not Phase.RUNNING or not computes(state):
        return 0
    if spec.kind == "generator":
        return 0 if state.ended else 1
    if (not state.pending or state.lacks_input) and not state.makes_again:
        return 0
    if not spec.follows_backlog or spec.kind != "step":
        return _most(state)
    at_work = state.replicas.at_work
    waiting = -(-len(state.pending) // (state.pace.batches * spec.batches_at_once))
    return min(max(at_work + waiting, spec.fewest), spec.replicas)


def _most(state: StepState) -> int:
    return state.spec.replicas if state.spec.kind == "step" else 1


def _at_first(state: StepState) -> int:
    return state.spec.fewest if state.spec.follows_backlog else _most(state)


def _holders(state: StepState) -> Iterator[Replica]:
    """The replicas of a step that hold what it declares."""
    if state.spec.bundles and state.phase in (Phase.RUNNING, Phase.FLUSHING):
        yield from (replica for replica in state.replicas.values() if not replica.joins)
