"""A step that keeps some columns and drops the rest."""

from __future__ import annotations

from pydantic import Field

from distill_ray.steps.base import Step
from distill_ray.types import StepColumns, StepInput, StepOutput


class KeepColumns(Step):
    """Keep only the given columns of each row, in the given order.

    A column that a row does not have stays missing.

    Attributes:
        columns: names of the columns to keep.

    Example:
        >>> step = KeepColumns(columns=["answer", "question"])
        >>> next(step.process([{"question": "2+2?", "seed": 1, "answer": "4"}]))
        [{'answer': '4', 'question': '2+2?'}]
    """

    columns: list[str] = Field(min_length=1)

    @property
    def inputs(self) -> StepColumns:
        """The columns that are kept."""
        return self.columns

    @property
    def outputs(self) -> StepColumns:
        """The columns that are kept."""
        return self.columns

    def process(self, inputs: StepInput) -> StepOutput:
        """Yield the batch with nothing but the columns."""
        yield [{column: row[column] for column in self.columns if column in row} for row in inputs]
