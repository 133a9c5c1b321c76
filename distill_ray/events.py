"""What happens in a run, for those who listen: progress, recorder, report. Frozen; the engine emits them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class StepDecided:
    """What the plan says of a step.

    Attributes:
        step: the step's name.
        decision: ``hit``, ``resume``, ``compute``, ``forced`` or ``not needed``.
        reason: why, in words.
        rows_known: rows that are stored.
        predecessors: the steps whose rows it is given.
        replicas: how many replicas may run.
        class_name: the class of the step.
        function: signature of the step function that its output is stored under.
        output_key: what names its output.
    """

    step: str
    decision: str
    reason: str
    rows_known: int
    predecessors: tuple[str, ...] = ()
    replicas: int = 1
    class_name: str = ""
    function: str = ""
    output_key: str = ""

    @property
    def runs(self) -> bool:
        """Whether it takes part in the run beyond being read."""
        return self.decision not in ("hit", "not needed")


@dataclass(frozen=True)
class RunStarted:
    """A run begins.

    Attributes:
        run: the run's id.
        pipeline: the pipeline's name.
        cache: URL of the cache root.
        steps: what the plan says of each step, in order.
    """

    run: str
    pipeline: str
    cache: str
    steps: tuple[StepDecided, ...]


@dataclass(frozen=True)
class StepBegun:
    """A step is first seen to."""

    step: str


@dataclass(frozen=True)
class ReplicaStarting:
    """A replica was asked for: it waits for its place and loads."""

    step: str
    replica: int


@dataclass(frozen=True)
class ReplicaUp:
    """A replica has loaded."""

    step: str
    replica: int


@dataclass(frozen=True)
class ReplicaDown:
    """A replica died, with its process or its node: others do what it was to do.

    Attributes:
        step: the step's name.
        replica: the replica's number.
        reason: what kind of death it was.
        loaded: whether it had loaded.
    """

    step: str
    replica: int
    reason: str
    loaded: bool


@dataclass(frozen=True)
class ReplicaAway:
    """A replica that had nothing to do made room for a step that had no place; it comes back when needed."""

    step: str
    replica: int


@dataclass(frozen=True)
class StepAwaited:
    """Another run computes a step's output: this one waits for it, and takes over what it has stored.

    Attributes:
        step: the step's name.
        holder: which run it is and how far it is, in words; empty: no other run computes it any more.
    """

    step: str
    holder: str


@dataclass(frozen=True)
class RunUnguarded:
    """Other runs may compute the same at the same time.

    Attributes:
        reason: why, in words.
    """

    reason: str


@dataclass(frozen=True)
class StepAdvanced:
    """Where a step stands: totals since the run began.

    Attributes:
        step: the step's name.
        rows_in: rows it has taken.
        rows_out: rows it has given, in order.
        rows_reused: rows out that were stored before.
        rows_computed: rows out that were made in this run.
        batches_computed: batches that were made in this run.
        rows_failed: input rows that the step could not do and went on without.
        rows_retried: rows that were tried again after errors that may pass, once for each try.
        rows_checked: stored rows that were computed again to compare.
        rows_differing: how many of them came out differently.
        seconds: seconds of work, over all replicas; of calls that run at the same time each counts in full.
        input_tokens: tokens that models read.
        output_tokens: tokens that models wrote.
    """

    step: str
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


@dataclass(frozen=True)
class CallDone:
    """A replica has answered a call, which ran for `seconds` until `lag` before this event.

    Machines' clocks are not compared: the driver notes when it sends a call and when the answer is there,
    the replica how long it took. What is left over counts as waiting: the way, and calls before it.

    Attributes:
        step: the step's name.
        replica: the replica's number.
        purpose: ``compute``, ``join``, ``check`` or ``keep``.
        batches: batches that are done.
        rows_in: rows that it was given.
        rows_out: rows that it made.
        seconds: how long it ran.
        waited: seconds between sending and the answer in which it did not run.
        lag: seconds since the answer came.
        failed: it could not do all.
    """

    step: str
    replica: int
    purpose: str
    batches: int
    rows_in: int
    rows_out: int
    seconds: float
    waited: float
    lag: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    failed: bool = False


@dataclass(frozen=True)
class CallLost:
    """A call sent `seconds` ago that nobody answers any more: its replica is lost, or the run ends first."""

    step: str
    replica: int
    purpose: str
    rows_in: int
    seconds: float


@dataclass(frozen=True)
class Queue:
    """What waits at a step.

    Attributes:
        rows: rows that the steps above have given and it has not done yet.
        nbytes: bytes of its own rows in memory, for those that follow or until they are written.
    """

    step: str
    rows: int = 0
    nbytes: int = 0
    calls: int = 0


@dataclass(frozen=True)
class QueuesMeasured:
    """What waits where that has changed; said once a second at most."""

    queues: tuple[Queue, ...]


WORK = (
    "rows_computed",
    "batches_computed",
    "rows_failed",
    "rows_retried",
    "rows_checked",
    "rows_differing",
    "seconds",
    "input_tokens",
    "output_tokens",
)
"""What of `StepAdvanced` adds up where a run was planned anew on the way."""


@dataclass(frozen=True)
class PartWritten:
    """A part has reached the storage."""

    step: str
    part: str
    size: int


@dataclass(frozen=True)
class StepCommitting:
    """All rows of a step are in parts: its manifest is about to be written."""

    step: str


@dataclass(frozen=True)
class StepFinished:
    """A step's output is complete and its manifest written."""

    step: str
    rows: int


@dataclass(frozen=True)
class StepFailed:
    """A step could not go on.

    Attributes:
        step: the step's name.
        message: what happened.
        rows: first row and end of the batch in the step's input, if a batch failed.
    """

    step: str
    message: str
    rows: tuple[int, int] | None


@dataclass(frozen=True)
class RowsFailed:
    """A step could not do some rows, and went on without them as its ``on_error`` says.

    Attributes:
        step: the step's name.
        first_row: number of the first in the step's input.
        rows: how many.
        message: what happened.
    """

    step: str
    first_row: int
    rows: int
    message: str


@dataclass(frozen=True)
class Divergent:
    """Another run has made the same output with other rows; the first one committed is kept.

    Attributes:
        step: the step's name.
        output_key: the output's key.
        kept: digest of the rows that are kept.
        kept_of: the run that made those.
        made: digest of the rows that this run made.
    """

    step: str
    output_key: str
    kept: str
    kept_of: str
    made: str


@dataclass(frozen=True)
class DamageFound:
    """Stored rows that the run needs are gone or damaged; they were removed.

    Attributes:
        reason: what was found.
    """

    reason: str


@dataclass(frozen=True)
class RunRepaired:
    """The run goes on with a new plan, in which what was damaged is computed again.

    Attributes:
        steps: what the plan says of each step, in order.
    """

    steps: tuple[StepDecided, ...]


@dataclass(frozen=True)
class RunStopping:
    """A signal, by its number, asked the run to end early: what is under way ends, what is done is written.

    Attributes:
        calls: how many are under way, by step.
        seconds: since when the oldest of them is.
    """

    signal: int
    calls: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class RunFinished:
    """A run has ended.

    Attributes:
        run: the run's id.
        status: ``"complete"``, ``"failed"`` or ``"interrupted"``.
        seconds: wall time of the run, Ray's start included.
        error: why it did not complete.
    """

    run: str
    status: str
    seconds: float
    error: str = ""


RunEvent: TypeAlias = (
    RunStarted
    | StepBegun
    | ReplicaStarting
    | ReplicaUp
    | ReplicaDown
    | ReplicaAway
    | StepAwaited
    | RunUnguarded
    | StepAdvanced
    | CallDone
    | CallLost
    | QueuesMeasured
    | PartWritten
    | StepCommitting
    | StepFinished
    | StepFailed
    | RowsFailed
    | Divergent
    | DamageFound
    | RunRepaired
    | RunStopping
    | RunFinished
)

Listener: TypeAlias = Callable[[RunEvent], None]
