"""Every error distill_ray raises on purpose, by what the caller can do about it.

DistillRayError
├── GraphError          the pipeline is declared wrongly: mend the script
│   └── UndeclaredColumnError   a row-wise step reads a column that it does not declare
├── ParameterError      a value given to a step, a run or a command is wrong
├── SignatureError      something cannot be signed: set ``version``, or exclude it
├── RowError            a step gave a row that cannot be stored exactly
├── ModelError          a model cannot be found, loaded or reached
├── StorageError        the cache root cannot be read or written
│   ├── CorruptObjectError   an object is not what was written
│   └── FormatVersionError   the cache root was made by another format of distill_ray
├── ResourceError       no node can hold what a step declares, nor did one come that can
│   └── ClusterError     a Ray cluster cannot be reached, or does not take a job
├── TransientError      user code raises it for what may pass: the batch is tried again
├── StepError           a step raised while running
│   └── DamagedPartError    rows that a step needs are stored no more: another attempt computes them
└── RunInterruptedError the run was stopped; run it again to resume

ProcessUnusableError stands apart: it is no Exception.
"""

from __future__ import annotations


class DistillRayError(Exception):
    """Base of all errors raised by distill_ray."""


class GraphError(DistillRayError):
    """The pipeline's steps or connections are wrong."""


class UndeclaredColumnError(GraphError):
    """A row-wise step reads a column that its ``inputs`` does not declare."""


class ParameterError(DistillRayError):
    """A parameter has a wrong name or value."""


class SignatureError(DistillRayError):
    """A value or a piece of code cannot be signed."""


class RowError(DistillRayError):
    """A row holds something that cannot be stored exactly."""


class ModelError(DistillRayError):
    """A model cannot be found, loaded or reached."""


class StorageError(DistillRayError):
    """The storage cannot be read or written."""


class CorruptObjectError(StorageError):
    """A stored object is not what was written."""


class FormatVersionError(StorageError):
    """The cache root has another format version."""


class ResourceError(DistillRayError):
    """No node has the resources that a step declares."""


class ClusterError(ResourceError):
    """A Ray cluster cannot be reached, or does not take a job."""


class TransientError(DistillRayError):
    """What a step or a model raises for something that may pass: the batch is tried again after a while."""


class StepError(DistillRayError):
    """A step raised while it ran: names the step, the rows and the original traceback."""

    def __init__(
        self, step: str, message: str, *, rows: tuple[int, int] | None = None, trace: str = ""
    ) -> None:
        self.step = step
        self.rows = rows
        self.trace = trace
        text = f"Step '{step}'{_place(rows)}: {message}"
        super().__init__(f"{text}\n\n{trace}" if trace else text)


class DamagedPartError(StepError):
    """Rows that a step was to read are stored no more, or not as they were written."""


class RunEndedError(KeyboardInterrupt):
    """A signal ended the run at once: a second one, or one that came when no call was under way.

    It is a ``KeyboardInterrupt``: what goes on after any other error ends, too.

    Attributes:
        signal: number of the signal that ended it.
    """

    def __init__(self, message: str = "", *, signal: int) -> None:
        self.signal = signal
        super().__init__(message)


class RunInterruptedError(DistillRayError):
    """The run was stopped before its end. What was finished is in the cache: run again to resume.

    Attributes:
        signal: number of the signal that stopped it.
    """

    def __init__(self, message: str, *, signal: int) -> None:
        self.signal = signal
        super().__init__(message)


def _place(rows: tuple[int, int] | None) -> str:
    if rows is None:
        return ""
    first, last = rows[0], rows[1] - 1
    return f", input row {first}" if first == last else f", input rows {first} to {last}"


class ProcessUnusableError(BaseException):
    """What this process loaded is dead, such as an engine in a process of its own, and does not come back.

    A replica that raises it is ended and replaced, and its work given to others. It is no ``Exception``: code
    that goes on after a request or a row that failed must not go on after this.
    """
