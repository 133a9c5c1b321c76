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
class ReplicaUp:
    """A replica has loaded."""

    step: str
    replica: int


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
        seconds: seconds of work, over all replicas.
        input_tokens: tokens that models read.
        output_tokens: tokens that models wrote.
    """

    step: str
    rows_in: int
    rows_out: int
    rows_reused: int
    rows_computed: int
    batches_computed: int
    seconds: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class PartWritten:
    """A part has reached the storage."""

    step: str
    part: str
    size: int


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
class RunStopping:
    """A signal asked the run to end early: what is under way ends, what is finished is written.

    Attributes:
        signal: the signal's number.
    """

    signal: int


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
    | ReplicaUp
    | StepAdvanced
    | PartWritten
    | StepFinished
    | StepFailed
    | RunStopping
    | RunFinished
)

Listener: TypeAlias = Callable[[RunEvent], None]
