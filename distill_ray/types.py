"""The words that users' annotations are written in: rows, batches and marks on parameters.

Nothing here runs; other modules read these marks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

T = TypeVar("T")

Row: TypeAlias = dict[str, Any]
"""One row: a JSON-like dict with string keys."""

METADATA = "distilabel_metadata"
"""The column that holds raw input and output and the token counts of tasks, as in distilabel."""

Batch: TypeAlias = list[Row]

StepInput: TypeAlias = list[dict[str, Any]]
"""What ``Step.process`` is given for each predecessor."""

StepOutput: TypeAlias = Iterator[list[dict[str, Any]]]
"""What ``Step.process`` yields: lists of rows."""


@dataclass(frozen=True)
class RowFailure:
    """What a row-wise step may yield in the place of a row's list: that row failed, the others did not.

    Attributes:
        error: why it failed. None: it was not tried since another row failed; only where the step's
            ``on_error`` is ``"raise"``.
    """

    error: BaseException | None


GeneratorStepOutput: TypeAlias = Iterator[tuple[list[dict[str, Any]], bool]]
"""What ``GeneratorStep.process`` yields: ``(rows, last)``."""

StepColumns: TypeAlias = list[str] | dict[str, bool]
"""``inputs``/``outputs``: names, or ``{name: required}``."""


@dataclass(frozen=True)
class UnsignedMark:
    """The parameter changes how a step runs, never what it computes: it is no part of a signature."""


@dataclass(frozen=True)
class RuntimeParameterMark:
    """The parameter may be given to ``Pipeline.run(parameters=...)``."""


Unsigned: TypeAlias = Annotated[T, UnsignedMark()]
RuntimeParameter: TypeAlias = Annotated[T, RuntimeParameterMark()]
