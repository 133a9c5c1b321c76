"""Which replicas may be taken from a step for another one that waits for a place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from distill_ray.engine.scheduling.room import Amounts, Place, Room
from distill_ray.engine.scheduling.step_state import Phase, StepState

IDLE_SECONDS = 60.0
"""How long a replica has had nothing to do when its step can do without it."""


class Urgency(IntEnum):
    """How much a step needs a replica more."""

    NO_PLACE = 0
    TOO_FEW = 1
    MORE = 2


class _Cost(IntEnum):
    """What it costs to take a replica away."""

    NOT_UP = 0
    IDLE = 1
    AT_WORK = 2


@dataclass(frozen=True)
class Giver:
    """A replica that may go.

    Attributes:
        state: its step.
        number: its number.
        cost: what is lost by it.
        last: it may go although its step has no more than its fewest.
    """

    state: StepState
    number: int
    cost: _Cost
    last: bool

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.state.replicas[self.number].place or ()

    def on(self, node: str) -> dict[str, float]:
        """What it holds of a node, or may hold there: where Ray found room, only its first node is known."""
        held: dict[str, float] = {}
        bundles = self.state.spec.bundles
        place = (*self.place, *[node] * (len(bundles) - len(self.place)))
        for there, needs in zip(place, bundles, strict=True):
            for name, amount in needs.items() if there == node else ():
                held[name] = held.get(name, 0) + amount
        return held


def is_done(state: StepState) -> bool:
    """Whether a step has nothing more to give to replicas than what these are at."""
    return state.input_ended and not state.pending and state.all_saved


def givers(state: StepState, urgency: Urgency, *, starved: bool) -> Iterator[Giver]:
    """The replicas of a step that may go for another one.

    Args:
        state: the step.
        urgency: that of the other.
        starved: the step's rows come from a step that has no place.
    """
    pool, done = state.replicas, is_done(state)
    urgent = urgency is not Urgency.MORE
    for number in pool.unused:
        long_idle = pool[number].idle_seconds >= IDLE_SECONDS
        if urgent or done or long_idle:
            yield Giver(state, number, _Cost.IDLE, last=done or (urgent and (starved or long_idle)))
    if not urgent or pool.staying <= state.spec.fewest:
        return
    for number, replica in pool.items():
        if not replica.joins and not replica.leaving and (replica.calls or not replica.ready):
            yield Giver(state, number, _Cost.AT_WORK if replica.ready else _Cost.NOT_UP, last=False)


def cheapest(
    bundles: Sequence[Amounts], may_go: Collection[Giver], room: Room, nodes: Collection[str]
) -> tuple[Place, list[Giver]] | None:
    """A place, and the replicas that make room there for another at the least cost; None: there is none.

    Args:
        bundles: what it needs.
        may_go: the replicas that may go.
        room: what is free once those have gone that are leaving already.
        nodes: all nodes.
    """
    in_order = sorted(may_go, key=lambda giver: giver.cost)
    if len(bundles) > 1:
        return _anywhere(bundles, in_order, room.copy())
    plans = (((node,), _on_node(node, room.lacking(node, bundles[0]), in_order)) for node in nodes)
    return min(((place, plan) for place, plan in plans if plan is not None), key=_price, default=None)


def _price(found: tuple[Place, list[Giver]]) -> tuple[int, int]:
    _, plan = found
    return sum(giver.cost is _Cost.AT_WORK for giver in plan), len(plan)


class _Spare:
    """How many replicas each step can do without, while some are chosen to go."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def has(self, giver: Giver) -> bool:
        """Whether this one may go, too."""
        name, pool = giver.state.spec.name, giver.state.replicas
        return giver.last or self._left.setdefault(name, pool.staying - giver.state.spec.fewest) > 0

    def take(self, giver: Giver) -> None:
        """It goes."""
        name, pool = giver.state.spec.name, giver.state.replicas
        self._left[name] = self._left.get(name, pool.staying - giver.state.spec.fewest) - 1


def _on_node(node: str, lacking: dict[str, float], in_order: Sequence[Giver]) -> list[Giver] | None:
    plan: list[Giver] = []
    spare = _Spare()
    for giver in in_order:
        held = giver.on(node)
        if not lacking.keys().isdisjoint(held) and spare.has(giver):
            spare.take(giver)
            plan.append(giver)
            lacking = _less(lacking, held)
    return None if lacking else plan


def _anywhere(
    bundles: Sequence[Amounts], in_order: Sequence[Giver], room: Room
) -> tuple[Place, list[Giver]] | None:
    plan: list[Giver] = []
    spare = _Spare()
    for giver in in_order:
        if (place := room.find(bundles)) is not None:
            return place, plan
        if spare.has(giver):
            spare.take(giver)
            plan.append(giver)
            room.give(giver.place, giver.state.spec.bundles)
    place = room.find(bundles)
    return None if place is None else (place, plan)


def _less(lacking: Mapping[str, float], given: Amounts) -> dict[str, float]:
    rest = {name: amount - given.get(name, 0) for name, amount in lacking.items()}
    return {name: amount for name, amount in rest.items() if amount > 1e-5}


def _kinds(state: StepState) -> set[str]:
    """The names of all that a step's replicas hold."""
    return {name for needs in state.spec.bundles for name in needs}


def may_give(state: StepState, other: StepState) -> bool:
    """Whether a step has replicas that hold something another one needs."""
    return state is not other and state.phase is Phase.RUNNING and not _kinds(state).isdisjoint(_kinds(other))
