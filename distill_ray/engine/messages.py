"""What travels between the driver and a step's replicas: small records, never rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.writer import WrittenPart

CALL_SECONDS = 0.2
"""How long one call should take: long enough to hide the 2 ms that it costs, short enough to stay fair."""


@dataclass(frozen=True)
class StoredPart:
    """A part to read rows from: the step that made it, and its name."""

    step: str
    name: str


class Range(NamedTuple):
    """Rows of one source. A tuple: there may be one for each row, and it is made several times faster.

    Attributes:
        source: position in `Work.sources`.
        start: first row.
        rows: number of rows.
    """

    source: int
    start: int
    rows: int


@dataclass(frozen=True)
class BatchWork:
    """One batch for ``process``.

    Attributes:
        runs: ``(number of the first row in the step's input, rows)`` for rows that follow each other there.
        key: the unit's key, 16 bytes; empty for a row-wise step, whose rows are units.
    """

    runs: tuple[tuple[int, int], ...]
    key: bytes = b""

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(rows for _, rows in self.runs)

    @property
    def numbers(self) -> list[int]:
        """The number that each row has in the step's input."""
        return [number for first, rows in self.runs for number in range(first, first + rows)]


class Purpose(Enum):
    """What a call is for."""

    COMPUTE = "compute"
    JOIN = "join"
    """Put stored rows of a row-wise step together with input rows of which other columns have changed."""
    CHECK = "check"
    """Compute what is stored already, to compare; the rows are not kept."""
    KEEP = "keep"
    """Write rows that another replica made, and took with it before they were written."""
    GIVE_UP = "give up"
    """Put in the place of rows that kill their process what the step's ``on_error`` says."""

    @property
    def needs_step(self) -> bool:
        """Whether the step's own code is called."""
        return self in (Purpose.COMPUTE, Purpose.CHECK)


@dataclass(frozen=True)
class Work:
    """What one call asks of a replica.

    Attributes:
        block: name of the rows that the call will make.
        batches: the batches, in order; none for a generator.
        inputs: for each predecessor the ranges that hold all batches' rows, in order.
        sources: where rows are read from; None stands for the next table handed over with the call.
        offset: for a generator that has not begun: number of its first row.
        max_batches: for a generator: stop after so many batches; 0 is no limit.
        purpose: what the call is for.
        stored: to join: for each input row where the rows stand that were made of it.
        reason: to give up: why.
    """

    block: int
    batches: tuple[BatchWork, ...] = ()
    inputs: tuple[tuple[Range, ...], ...] = ()
    sources: tuple[StoredPart | None, ...] = ()
    offset: int = 0
    max_batches: int = 0
    purpose: Purpose = Purpose.COMPUTE
    stored: tuple[Range, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a step could not go on, as text: an exception of a user's class may not travel.

    Attributes:
        step: the step's name.
        message: class and text of the exception.
        trace: the traceback in the replica.
        rows: first row and end of the batch in the step's input, if it was a batch that failed.
        damaged: rows that it needs are stored no more, or not as they were written: another attempt
            computes them.
        unplaced: no node came that could hold a replica.
    """

    step: str
    message: str
    trace: str = ""
    rows: tuple[int, int] | None = None
    damaged: bool = False
    unplaced: bool = False


@dataclass(frozen=True)
class FailedRows:
    """Rows that a step could not do, and went on without.

    Attributes:
        first_row: number of the first in the step's input.
        rows: how many.
        message: class and text of the exception.
    """

    first_row: int
    rows: int
    message: str


@dataclass(frozen=True)
class WorkRecord:
    """What came of a call, beside the rows.

    Attributes:
        batches: how many of the call's batches are done; for a generator, how many it made.
        counts: rows out of each unit that is done, in order.
        digests: 16 bytes for each row out.
        nbytes: bytes of the rows in memory.
        seconds: how long the call took.
        last: a generator that has ended.
        written: parts that reached the storage since the last call.
        failed: input rows that the step could not do and, by its ``on_error``, went on without.
        rows_retried: rows that were tried again after errors that may pass.
        stuck: why the replica can't be used any more: something in it does not come back; empty: it can.
        overdue: it is the batch after those that are done that does not come back; else it was not begun.
        failure: why the rest of the call's units are missing.
    """

    batches: int = 0
    counts: tuple[int, ...] = ()
    digests: bytes = b""
    nbytes: int = 0
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    last: bool = False
    written: tuple[WrittenPart, ...] = ()
    failed: tuple[FailedRows, ...] = ()
    rows_retried: int = 0
    stuck: str = ""
    overdue: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class ReplicaReady:
    """A replica has loaded, and is on this node where there are any, or failed to load."""

    step: str
    replica: int
    failure: Failure | None = None
    node: str = ""


@dataclass(frozen=True)
class WorkDone:
    """A call has returned.

    Attributes:
        step: the step's name.
        replica: the replica's number.
        block: the rows that it made.
        record: what came of it.
        at: when its answer was there, by this process's monotonic clock; 0: nobody looked.
    """

    step: str
    replica: int
    block: int
    record: WorkRecord
    at: float = 0.0


@dataclass(frozen=True)
class Flushed:
    """A replica has written all it had."""

    step: str
    replica: int
    written: tuple[WrittenPart, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True)
class ReplicaLost:
    """A replica's process is gone.

    Attributes:
        step: the step's name.
        replica: the replica's number.
        reason: what became of it, in words that follow its name: "exited with code 3".
        detail: all that is known of it.
        with_node: its node is gone or out of reach: what it was at has nothing to do with it.
        out_of_memory: it was ended since its node's memory was full, maybe of what others hold.
    """

    step: str
    replica: int
    reason: str
    detail: str = ""
    with_node: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True)
class RowsLost:
    """Rows that were in memory are gone, with the node that held them: whoever was to read them could not.

    Attributes:
        step: the step that was to read them.
        blocks: the rows.
        replica: the replica whose call could not read them; None: their keys could not be read.
        call: the block that the call was to make.
    """

    step: str
    blocks: tuple[int, ...]
    replica: int | None = None
    call: int | None = None


@dataclass(frozen=True)
class NoRoom:
    """A replica has waited for its place in vain: others on the cluster hold what it needs."""

    step: str
    replica: int


@dataclass(frozen=True)
class NodesSeen:
    """What each living node has in all.

    Attributes:
        nodes: amounts by Ray's names, by the node's id.
        seconds: since the last look.
        failure: a step waited too long for a node that could hold it.
    """

    nodes: Mapping[str, Mapping[str, float]]
    seconds: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True)
class PartsFound:
    """What a lost replica had written.

    Attributes:
        step: the step's name.
        replica: the replica's number.
        parts: its parts, in the order in which it wrote them, and what they hold.
        failure: why they are not known.
    """

    step: str
    replica: int
    parts: tuple[tuple[PartEntry, UnitIndex], ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True)
class Committed:
    """A step's manifest is written, or could not be.

    Attributes:
        step: the step's name.
        failure: why not.
        kept: digest of the rows of the output that stands there now, and the run that made it.
    """

    step: str
    failure: Failure | None = None
    kept: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class KeysRead:
    """Digests of some columns of a block's rows are known.

    Attributes:
        step: the row-wise step that asked.
        block: the block.
        columns: the columns.
        keys: 16 bytes for each row of the block.
        failure: why they are not known.
    """

    step: str
    block: int
    columns: tuple[str, ...]
    keys: bytes = b""
    failure: Failure | None = None


@dataclass(frozen=True)
class DigestsRead:
    """The digests of a part's rows are known.

    Attributes:
        step: the step that asked.
        part: the part's name.
        digests: 16 bytes for each row.
        failure: why they are not known.
    """

    step: str
    part: str
    digests: bytes = b""
    failure: Failure | None = None


@dataclass(frozen=True)
class UnitsFound:
    """What another run, which computes a step's output, has stored of it by now.

    Attributes:
        step: the step's name.
        parts: parts that were not there before, and what they hold.
        holder: which run it is, in words; empty: no other run computes it any more.
        failure: why nothing is known of it any more.
    """

    step: str
    parts: tuple[tuple[PartEntry, UnitIndex], ...] = ()
    holder: str = ""
    failure: Failure | None = None


@dataclass(frozen=True)
class StopRequested:
    """The run is to end early: what is under way ends, what is finished is written.

    Attributes:
        signal: number of the signal that asked for it.
    """

    signal: int


ReplicaEvent: TypeAlias = ReplicaReady | WorkDone | Flushed | ReplicaLost
"""What a replica reports, or what is reported of it."""

Event: TypeAlias = (
    ReplicaEvent
    | RowsLost
    | NoRoom
    | NodesSeen
    | PartsFound
    | Committed
    | KeysRead
    | DigestsRead
    | UnitsFound
    | StopRequested
)


def failure_of(event: Event) -> Failure | None:
    """Return what went wrong in what the event reports, if anything did."""
    if isinstance(event, WorkDone):
        return event.record.failure
    return None if isinstance(event, ReplicaLost | RowsLost | NoRoom | StopRequested) else event.failure
