"""A step's replicas: which are there, what each has under way, and which of them may be called next.

Whatever it is asked costs the same for ten replicas and for a thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from distill_ray.engine.scheduling.room import Place


@dataclass
class Replica:
    """One replica; only its `Pool` changes it.

    Attributes:
        joins: it only handles rows that are made already; the step is not loaded.
        ready: it has loaded.
        calls: calls that it has under way, to write what it holds among them.
        ending: it was told to write what it holds for good.
        flushed: it has.
        leaving: it gets no more calls: it makes room for a step that has no place.
        alone: it gets no other call beside the one that it has.
        stuck: why it is leaving where something in it does not come back: it is killed then.
        unfinished: blocks that it was to make again and of which it made, and writes, some of the rows only.
        place: the nodes that it was given, none where Ray finds some; None: it needs nothing of any.
        idle_seconds: how long it has had nothing to do, as far as was looked.
    """

    joins: bool = False
    ready: bool = False
    calls: int = 0
    ending: bool = False
    flushed: bool = False
    leaving: bool = False
    alone: bool = False
    stuck: str = ""
    unfinished: frozenset[int] = frozenset()
    place: Place | None = None
    idle_seconds: float = 0.0


class Pool(Mapping[int, Replica]):
    """The replicas of one step, by their numbers.

    Attributes:
        started: how many there ever were: the number of the next one.
        computing: how many are there that compute, ready or not.
        ready: how many of these are ready.
    """

    def __init__(self) -> None:
        self.started = 0
        self.computing = 0
        self.ready = 0
        self._all: dict[int, Replica] = {}
        self._not_ready: dict[int, None] = {}
        self._unflushed: dict[int, None] = {}
        self._idle: dict[int, None] = {}
        self._leaving: dict[int, None] = {}
        self._by_calls: list[dict[int, None]] = []
        """Those that may be called, by how many calls they have under way."""
        self._joining: dict[int, None] = {}

    def __getitem__(self, number: int) -> Replica:
        return self._all[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def not_ready(self) -> tuple[int, ...]:
        """Those that have not loaded."""
        return tuple(self._not_ready)

    @property
    def all_flushed(self) -> bool:
        """Whether all that have loaded have written what they made, for good."""
        return not self._unflushed

    @property
    def idle(self) -> tuple[int, ...]:
        """Those that have nothing to do, and may hold rows that they have not written."""
        return tuple(self._idle)

    @property
    def staying(self) -> int:
        """How many compute, ready or not, and are not to go."""
        return self.computing - len(self._leaving)

    @property
    def at_work(self) -> int:
        """How many of these have a call under way: those that have not loaded have none."""
        return self.ready - len(self._leaving) - self.idle_count

    @property
    def unused(self) -> tuple[int, ...]:
        """Those that compute and are ready, but have no call under way."""
        return tuple(self._by_calls[0]) if self._by_calls else ()

    @property
    def idle_count(self) -> int:
        """How many these are."""
        return len(self._by_calls[0]) if self._by_calls else 0

    @property
    def leaving(self) -> tuple[int, ...]:
        """Those that get no more calls."""
        return tuple(self._leaving)

    @property
    def joins(self) -> bool:
        """Whether there is one that joins, ready or not."""
        return bool(self._joining)

    def free(self, limit: int) -> int | None:
        """The one that computes with the fewest calls under way, if it has fewer than ``limit``."""
        for numbers in self._by_calls[:limit]:
            if numbers:
                return next(reversed(numbers))
        return None

    def free_to_join(self, limit: int) -> int | None:
        """The same of those that join."""
        return next((n for n in self._joining if self._all[n].ready and self._all[n].calls < limit), None)

    # What happens to one of them.

    def start(self, *, joins: bool, place: Place | None = None) -> int:
        """Take a new one in; returns its number."""
        number = self.started
        self.started += 1
        self._all[number] = Replica(joins=joins, place=place)
        self._not_ready[number] = None
        self.computing += not joins
        if joins:
            self._joining[number] = None
        return number

    def loaded(self, number: int, node: str | None = None) -> None:
        """It is ready to be called, on the node where it was found to be."""
        replica = self._all[number]
        self._forget(number, replica)
        replica.ready = True
        if node and replica.place is not None and len(replica.place) < 2:
            replica.place = (node,)
        self._not_ready.pop(number, None)
        self.ready += not replica.joins
        self._note(number, replica)

    def called(self, number: int, *, alone: bool = False) -> None:
        """It is called, also if it was told that it had written all."""
        replica = self._all[number]
        self._forget(number, replica)
        replica.calls += 1
        replica.idle_seconds = 0.0
        replica.ending = replica.flushed = False
        replica.alone = alone
        self._note(number, replica)

    def told_to_flush(self, number: int, *, for_good: bool) -> None:
        """It is to write all that it holds."""
        replica = self._all[number]
        self._forget(number, replica)
        replica.calls += 1
        replica.ending = replica.ending or for_good
        self._note(number, replica)

    def returned(self, number: int) -> None:
        """A call of it has ended."""
        replica = self._all[number]
        self._forget(number, replica)
        replica.calls -= 1
        replica.alone = False
        self._note(number, replica)

    def wrote_all(self, number: int) -> None:
        """It has written all that it holds."""
        replica = self._all[number]
        self._forget(number, replica)
        replica.calls -= 1
        replica.flushed = replica.ending
        self._note(number, replica)

    def leave(self, number: int, *, stuck: str = "") -> None:
        """It is to get no more calls, and to be killed where it is stuck."""
        replica = self._all[number]
        self._forget(number, replica)
        replica.leaving = True
        replica.stuck = replica.stuck or stuck
        self._note(number, replica)

    def left_unfinished(self, number: int, block: int) -> None:
        """It made some of a block's rows only: its parts do not hold the block."""
        replica = self._all[number]
        replica.unfinished |= {block}

    def remove(self, number: int) -> Replica:
        """It is gone, or is to go."""
        replica = self._all.pop(number)
        self._forget(number, replica)
        self._not_ready.pop(number, None)
        self._joining.pop(number, None)
        if not replica.joins:
            self.computing -= 1
            self.ready -= replica.ready
        return replica

    def _forget(self, number: int, replica: Replica) -> None:
        """Strike it from the lists that its standing put it on."""
        self._unflushed.pop(number, None)
        self._idle.pop(number, None)
        self._leaving.pop(number, None)
        if replica.calls < len(self._by_calls):
            self._by_calls[replica.calls].pop(number, None)

    def _note(self, number: int, replica: Replica) -> None:
        if replica.leaving:
            self._leaving[number] = None
        if not replica.ready:
            return
        if not replica.flushed:
            self._unflushed[number] = None
            if not replica.calls:
                self._idle[number] = None
        if not replica.leaving and not replica.alone and not replica.joins:
            while len(self._by_calls) <= replica.calls:
                self._by_calls.append({})
            self._by_calls[replica.calls][number] = None
