"""What the scheduler knows of one running step: its input, what is pending, its replicas, its output."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from distill_ray.cache.units import StoredRows, StoredUnits
from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.messages import CALL_SECONDS, FailedRows, Purpose, WorkDone, WorkRecord
from distill_ray.engine.scheduling.batches import Batch, Run
from distill_ray.engine.scheduling.blocks import Piece, Slice
from distill_ray.engine.scheduling.edge import Edge
from distill_ray.engine.scheduling.pool import Pool
from distill_ray.engine.scheduling.room import Amounts
from distill_ray.engine.scheduling.routing import Converging
from distill_ray.graph.streams import Convergence
from distill_ray.steps.base import OnError, StepKind

CALL_BYTES = 4 << 20
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
        fewest: how many come before any other step gets more than its fewest.
        follows_backlog: it has as many replicas as its batches keep busy, instead of all that may run.
        bundles: what each replica holds of its node, or of several, by Ray's names; none: it is put anywhere.
        max_batches: for a generator: batches after which it counts as ended; 0 is no limit.
        columns: of a row-wise step, whose units are rows: the columns it is handed; else None.
        joins_input: of a row-wise step: the other columns of its input are joined onto its rows.
        strides: for each predecessor how many of its rows belong to one row of the first.
        check_share: share of the stored units that are computed again to compare.
        on_error: what becomes of rows that fail.
        stage: it starts no replica before all steps of lower stages have ended.
        batches_at_once: how many batches each replica may work on at once.
        branches: for each predecessor the step that must be chosen for a batch of its rows to come here;
            None: all come. Empty: no predecessor's rows are routed.
        converges: what it joins, where it joins batches that were routed to different steps.
    """

    name: str
    predecessors: tuple[str, ...] = ()
    kind: StepKind = "step"
    batch_size: int = 50
    replicas: int = 1
    fewest: int = 1
    follows_backlog: bool = False
    bundles: tuple[Amounts, ...] = ()
    max_batches: int = 0
    columns: tuple[str, ...] | None = None
    joins_input: bool = False
    strides: tuple[int, ...] = ()
    check_share: float = 0.0
    on_error: OnError = "raise"
    stage: int = 0
    batches_at_once: int = 1
    branches: tuple[str | None, ...] = ()
    converges: Convergence | None = None

    @property
    def leaves_out(self) -> bool:
        """Whether rows that fail are left out of its output."""
        return self.on_error == "skip"

    def stride(self, predecessor: int) -> int:
        """How many rows of a predecessor, by its position, belong to one row of the first."""
        return self.strides[predecessor] if self.strides else 1

    def branch(self, predecessor: int) -> str | None:
        """The step that must be chosen for a batch of a predecessor, by its position, to come here."""
        return self.branches[predecessor] if self.branches else None


class Phase(Enum):
    """Where a step stands: it goes through these in order."""

    RUNNING = "running"
    FLUSHING = "flushing"
    COMMITTING = "committing"
    DONE = "done"


@dataclass(frozen=True)
class Window:
    """Rows of a row-wise step's input that are being looked up.

    Attributes:
        first_row: number of the first one in the step's input.
        slices: for each predecessor where the rows are.
        digests: for each predecessor 16 bytes a row.
        wholes: 16 bytes a row, of all columns of all predecessors.
        found: what is stored of each, as far as that is known without its key.
    """

    first_row: int
    slices: tuple[tuple[Slice, ...], ...]
    digests: tuple[bytes, ...]
    wholes: bytes
    found: list[StoredRows | None]


@dataclass
class Gathering:
    """Rows of a row-wise step that wait until a batch is full."""

    purpose: Purpose
    runs: list[Run] = field(default_factory=list)
    stored: list[StoredRows] = field(default_factory=list)
    rows: int = 0


@dataclass(frozen=True)
class Unsaved:
    """Rows that a call made and that are in no part yet: they die with their replica.

    Attributes:
        replica: the replica that made them.
        batches: what they were made from; none for a generator.
        counts: rows out of each unit.
        digests: 16 bytes for each row.
    """

    replica: int
    batches: tuple[Batch, ...]
    counts: tuple[int, ...]
    digests: bytes


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
        """Calls to have waiting in each replica: one hides the way there and back."""
        return int(self.call_seconds is not None and self.call_seconds < 1)


@dataclass
class Counters:
    """What a step has done so far."""

    rows_in: int = 0
    rows_out: int = 0
    rows_reused: int = 0
    rows_computed: int = 0
    batches_computed: int = 0
    rows_failed: int = 0
    rows_retried: int = 0
    rows_checked: int = 0
    rows_differing: int = 0
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
    converging: Converging | None = None
    phase: Phase = Phase.RUNNING
    pending: deque[Batch] = field(default_factory=deque)
    to_join: deque[Batch] = field(default_factory=deque)
    calls: dict[int, tuple[int, tuple[Batch, ...]]] = field(default_factory=dict)
    replicas: Pool = field(default_factory=Pool)
    unsaved: dict[int, Unsaved] = field(default_factory=dict)
    """Rows that living replicas made and have not written yet, by block, in the order in which they came."""
    orphans: dict[int, Unsaved] = field(default_factory=dict)
    """Rows that a lost replica made, and nobody has written yet."""
    early: dict[int, WrittenPart] = field(default_factory=dict)
    """Orphans that are being made again and are said to be in parts, before it is known what they are."""
    to_search: list[int] = field(default_factory=list)
    """Lost replicas of which it is not known what they had written: to be looked for."""
    searched: set[int] = field(default_factory=set)
    """Those that are being looked for."""
    parts: set[str] = field(default_factory=set)
    """Names of the parts that its replicas said they had written."""
    lost: set[int] = field(default_factory=set)
    """Blocks whose rows are neither in memory nor, as far as is known, in a part."""
    makes_again: bool = False
    """Some of these wait for a replica that makes them again."""
    lacks_input: bool = False
    """Rows of its next batch were lost: a step above it makes them again."""
    deaths: int = 0
    """Processes that died at nothing that could be named, since a call was last done."""
    given_up: int = 0
    """Rows that were given up since some were last computed; of a step that is not row-wise, batches."""
    pace: Pace = field(default_factory=Pace)
    counters: Counters = field(default_factory=Counters)
    segments: list[Slice] = field(default_factory=list)
    ended: bool = False
    """For a generator: it has yielded its last rows."""
    returned: dict[int, WorkDone] = field(default_factory=dict)
    """For a generator: calls that returned before an earlier one."""
    offset: int = 0
    """Number of the first row that is not known yet: of a generator's output, else of the input."""
    window: Window | None = None
    """For a row-wise step: the rows that are being looked up."""
    asked_for_keys: set[int] = field(default_factory=set)
    """For a row-wise step: blocks whose rows' keys are being read."""
    asked_for_digests: set[str] = field(default_factory=set)
    """Parts whose rows' digests are being read."""
    failed: list[FailedRows] = field(default_factory=list)
    gave: bool = False
    """It has given rows, or its last ones, since the steps that follow were looked at."""
    awaited: bool = False
    """Another run computes it: what is stored is taken over as it comes, and nothing is computed."""
    has_begun: bool = False
    """Its stage has begun: before, it takes over what is stored, and computes nothing."""

    def __post_init__(self) -> None:
        self.missing = Gathering(Purpose.COMPUTE)
        self.changed = Gathering(Purpose.JOIN)
        self.checked = Gathering(Purpose.CHECK)
        self._waiting: dict[int, Piece] = {}
        self._next_place = 0
        self._next_emitted = 0
        self._after: dict[int, int] = {}
        """What follows a place in the output's order, where it is not the next number."""
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
        return self.inputs_used_up and not any(gathering.runs for gathering in self.gatherings)

    @property
    def next_inputs(self) -> tuple[Edge, ...]:
        """The inputs that the next rows are taken from; none: it is not known yet."""
        return self.inputs if self.converging is None else self.converging.edges()

    @property
    def inputs_used_up(self) -> bool:
        """Whether no rows will come any more, and all that came were looked up."""
        return self.window is None and all(edge.ended and edge.rows == 0 for edge in self.inputs)

    @property
    def gatherings(self) -> tuple[Gathering, ...]:
        """What waits for its batch to be full, by what is to be done with it."""
        return self.missing, self.changed, self.checked

    @property
    def all_emitted(self) -> bool:
        """Whether every unit formed so far is in the output."""
        waiting = self.pending or self.to_join or self.calls
        return not waiting and self._next_emitted == self._next_place

    @property
    def all_searched(self) -> bool:
        """Whether it is known what lost replicas had written."""
        return not self.to_search and not self.searched

    @property
    def all_saved(self) -> bool:
        """Whether nothing that lost replicas made is still to be saved."""
        return not self.orphans and self.all_searched

    def call(self, replica: int, block: int, batches: Sequence[Batch]) -> None:
        """Note that a replica is called to make a block, also if it was told that it had written all."""
        self.calls[block] = (replica, tuple(batches))
        self.replicas.called(replica, alone=any(batch.is_suspect for batch in batches))

    def pending_of(self, purpose: Purpose) -> deque[Batch]:
        """Batches that wait for a replica: for one that joins, or for one that computes."""
        return self.pending if purpose.needs_step else self.to_join

    def new_place(self) -> int:
        """Number the next place in the output's order."""
        self._next_place += 1
        return self._next_place - 1

    def place_after(self, place: int) -> int:
        """Name a place between this one and what follows it: its rows come in two goes."""
        between = -1 - len(self._after)
        self._after[between] = self._after.get(place, place + 1)
        self._after[place] = between
        return between

    def resolve(self, place: int, piece: Piece) -> list[Piece]:
        """The rows for a place are known; return the pieces that are now next in the output's order."""
        self._waiting[place] = piece
        emitted: list[Piece] = []
        while self._next_emitted in self._waiting:
            emitted.append(self._waiting.pop(self._next_emitted))
            self._next_emitted = self._after.get(self._next_emitted, self._next_emitted + 1)
        self.gave = self.gave or bool(emitted)
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

    def joins(self, replica: int) -> bool:
        """Whether a replica is the one without the step, or is gone."""
        return replica not in self.replicas or self.replicas[replica].joins

    def free_replica(self, batches: Sequence[Batch] = (), *, joins: bool = False) -> int | None:
        """The ready replica with the fewest calls under way, if it may have one more for these batches."""
        if joins:
            return self.replicas.free_to_join(1 + self.pace.calls_ahead)
        idle = any(batch.is_suspect for batch in batches)
        return self.replicas.free(1 if idle else self.spec.batches_at_once + self.pace.calls_ahead)
