"""What the scheduler knows of one running step: its input, what is pending, its replicas, its output."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from distill_ray.cache.units import StoredUnits
from distill_ray.engine.blocks import Edge, Piece, Slice
from distill_ray.engine.messages import CALL_SECONDS, WorkDone, WorkRecord
from distill_ray.steps.base import StepKind

CALL_BYTES = 2 << 20
"""Bytes that one call should make at most."""

MAX_BATCHES = 512
"""Batches that one call is given at most."""


@dataclass(frozen=True)
class StepSpec:
    """How the scheduler sees a step.

    Attributes:
        name: the step's name.
        predecessors: names of the steps whose rows it is given, in order.
        kind: whether it makes rows, is given them batch by batch, or all at once.
        batch_size: rows in each batch.
        replicas: how many replicas may run.
        max_batches: for a generator: batches after which it counts as ended; 0 is no limit.
    """

    name: str
    predecessors: tuple[str, ...] = ()
    kind: StepKind = "step"
    batch_size: int = 50
    replicas: int = 1
    max_batches: int = 0


class Phase(Enum):
    """Where a step stands: it goes through these in order."""

    RUNNING = "running"
    FLUSHING = "flushing"
    COMMITTING = "committing"
    DONE = "done"


@dataclass(frozen=True)
class Batch:
    """One batch of a step's input.

    Attributes:
        unit: its position among the step's units.
        key: its content's key.
        first_row: number of its first row in the step's input.
        rows: number of rows.
        slices: for each predecessor where the rows are.
    """

    unit: int
    key: bytes
    first_row: int
    rows: int
    slices: tuple[tuple[Slice, ...], ...]


@dataclass
class Replica:
    """One replica: whether it has loaded, how many calls it has, whether it has written all for good."""

    ready: bool = False
    calls: int = 0
    ending: bool = False
    flushed: bool = False


@dataclass
class Pace:
    """How many batches to send in one call, learnt from the calls before."""

    batches: int = 1
    call_seconds: float | None = None

    def learn(self, batches: int, record: WorkRecord) -> None:
        """Take in how long a call took and how much it made."""
        self.call_seconds = record.seconds
        if not batches or record.failure:
            return
        by_time = CALL_SECONDS * batches / max(record.seconds, 1e-6)
        by_size = CALL_BYTES * batches / max(record.nbytes, 1)
        self.batches = max(1, int(min(by_time, by_size, self.batches * 2, MAX_BATCHES)))

    @property
    def calls_ahead(self) -> int:
        """Calls to have under way in each replica: a second one hides the way there and back."""
        return 2 if self.call_seconds is not None and self.call_seconds < 1 else 1


@dataclass
class Counters:
    """What a step has done so far."""

    rows_in: int = 0
    rows_out: int = 0
    rows_reused: int = 0
    rows_computed: int = 0
    batches_computed: int = 0
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass
class StepState:
    """One running step."""

    spec: StepSpec
    stored: StoredUnits
    inputs: tuple[Edge, ...] = ()
    outputs: list[Edge] = field(default_factory=list)
    phase: Phase = Phase.RUNNING
    pending: deque[Batch] = field(default_factory=deque)
    calls: dict[int, tuple[int, tuple[Batch, ...]]] = field(default_factory=dict)
    replicas: dict[int, Replica] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    counters: Counters = field(default_factory=Counters)
    segments: list[Slice] = field(default_factory=list)
    ended: bool = False
    """For a generator: it has yielded its last rows."""
    returned: dict[int, WorkDone] = field(default_factory=dict)
    """For a generator: calls that returned before an earlier one."""
    offset: int = 0
    """For a generator: number of the first row that is not known yet."""

    def __post_init__(self) -> None:
        self._waiting: dict[int, Piece] = {}
        self._next_unit = 0
        self._next_emitted = 0
        self._content = hashlib.sha256()

    @property
    def content(self) -> str:
        """Digest of all rows so far, in order."""
        return self._content.hexdigest()

    @property
    def input_ended(self) -> bool:
        """Whether no batch will ever be formed again."""
        if self.spec.kind == "generator":
            return self.ended
        return all(edge.closed and edge.rows == 0 for edge in self.inputs)

    @property
    def all_emitted(self) -> bool:
        """Whether every unit formed so far is in the output."""
        return not self.pending and not self.calls and self._next_emitted == self._next_unit

    def new_unit(self) -> int:
        """Number the next unit."""
        self._next_unit += 1
        return self._next_unit - 1

    def resolve(self, unit: int, piece: Piece) -> list[Piece]:
        """A unit's rows are known; return the pieces that are now next in the output's order."""
        self._waiting[unit] = piece
        emitted: list[Piece] = []
        while self._next_emitted in self._waiting:
            emitted.append(self._waiting.pop(self._next_emitted))
            self._next_emitted += 1
        for each in emitted:
            self._content.update(each.digests)
            self._append(each.slice)
        return emitted

    def _append(self, piece: Slice) -> None:
        self.counters.rows_out += piece.rows
        last = self.segments[-1] if self.segments else None
        if last and last.block == piece.block and last.start + last.rows == piece.start:
            self.segments[-1] = Slice(last.block, last.start, last.rows + piece.rows)
        elif piece.rows:
            self.segments.append(piece)

    def free_replica(self) -> int | None:
        """The ready replica with the fewest calls under way, if it may have one more."""
        ready = [(replica.calls, number) for number, replica in self.replicas.items() if replica.ready]
        if not ready or min(ready)[0] >= self.pace.calls_ahead:
            return None
        return min(ready)[1]
