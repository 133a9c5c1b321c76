"""A loader of rows that are in memory."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from distill_ray.steps.base import GeneratorStep
from distill_ray.types import GeneratorStepOutput, RuntimeParameter, StepColumns


class LoadDataFromDicts(GeneratorStep):
    """Load rows from a list of dicts. Their content is part of the signature.

    Attributes:
        data: the rows.

    Example:
        >>> loader = LoadDataFromDicts(data=[{"n": 1}, {"n": 2}, {"n": 3}], batch_size=2)
        >>> list(loader.process())
        [([{'n': 1}, {'n': 2}], False), ([{'n': 3}], True)]
    """

    data: RuntimeParameter[list[dict[str, Any]]] = Field(default_factory=list, repr=False)

    @property
    def outputs(self) -> StepColumns:
        """All keys that any row has, in the order in which they first appear."""
        return list(dict.fromkeys(key for row in self.data for key in row))

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield the rows from number ``offset`` on, and whether they are the last."""
        for start in range(offset, max(len(self.data), offset + 1), self.batch_size):
            stop = start + self.batch_size
            yield [dict(row) for row in self.data[start:stop]], stop >= len(self.data)
