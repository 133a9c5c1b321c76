"""What every task is: render a request for each row, let the LLM generate, read its answers.

Rendering and reading are the task's own code (`format_input`, `format_output`); generating is the model's.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models.llm import LLM, ChatType, GenerateOutput
from distill_ray.steps.base import Step, label_of, snake_case
from distill_ray.types import METADATA, Batch, Row, RuntimeParameter, StepInput, StepOutput

_NOT_EXTRA = frozenset({"generations", "statistics", "finish_reasons"})
_log = logging.getLogger(__name__)


class Task(Step):
    """A step that asks an LLM about each row.

    A subclass gives ``inputs``, ``outputs``, ``format_input`` and ``format_output``. Each output row holds
    the input row, what ``format_output`` gave, ``model_name``, and in ``distilabel_metadata``, beside what
    the tasks before it put there, the keys ``raw_output_<task>``, ``raw_input_<task>`` and
    ``statistics_<task>`` (``{"input_tokens": int, "output_tokens": int}``). What else a model returns for
    each generation, such as ``logprobs``, becomes the column ``llm_<task>_logprobs``.

    Where ``format_output`` raises, the row's outputs are None, the raw output is kept in the metadata and a
    warning is logged.

    Attributes:
        llm: the model that is asked.
        group_generations: put the generations of a row in lists in one row, instead of a row for each.
        add_raw_output: keep the model's answer as it came in ``distilabel_metadata``.
        add_raw_input: keep the rendered request in ``distilabel_metadata``.
        num_generations: answers to ask for, for each row.
    """

    llm: LLM
    group_generations: bool = False
    add_raw_output: RuntimeParameter[bool] = True
    add_raw_input: RuntimeParameter[bool] = True
    num_generations: RuntimeParameter[int] = Field(default=1, ge=1)

    def load(self) -> None:
        """Load the model."""
        super().load()
        self.llm.load()

    def unload(self) -> None:
        """Unload the model."""
        self.llm.unload()
        super().unload()

    @abstractmethod
    def format_input(self, input: Row) -> ChatType:  # noqa: A002 - distilabel's name
        """Render the request for one row."""

    @abstractmethod
    def format_output(self, output: str | None, input: Row) -> Row:  # noqa: A002 - distilabel's name
        """Read one answer (None where the model gave none) into the task's output columns."""

    def process(self, *inputs: StepInput) -> StepOutput:
        """Yield the rows with the answers to them."""
        (rows,) = inputs
        requests = [self._render(index, row) for index, row in enumerate(rows)]
        answers = self.llm.generate_outputs(
            inputs=requests, num_generations=self.num_generations, **self.llm.get_generation_kwargs()
        )
        if len(answers) != len(rows):
            raise ModelError(
                f"Task '{label_of(self)}': {type(self.llm).__name__} gave {len(answers)} outputs "
                f"for {len(rows)} inputs."
            )
        yield [
            answered
            for row, request, answer in zip(rows, requests, answers, strict=True)
            for answered in self._answer(row, request, answer)
        ]

    def _render(self, index: int, row: Row) -> ChatType:
        try:
            return self.format_input(row)
        except ParameterError as error:
            raise ParameterError(f"Task '{label_of(self)}', row {index} of the batch: {error}") from error

    def _answer(self, row: Row, request: ChatType, answer: GenerateOutput) -> Batch:
        """Return the output rows of one input row."""
        if len(answer["generations"]) != self.num_generations:
            raise ModelError(
                f"Task '{label_of(self)}': {type(self.llm).__name__} gave {len(answer['generations'])} "
                f"generations for an input, {self.num_generations} were asked for."
            )
        parsed = [self._parse(row, request, answer, index) for index in range(self.num_generations)]
        if self.group_generations:
            parsed = [_group(parsed)]
        return [{**row, **columns, "model_name": self.llm.model_name} for columns in parsed]

    def _parse(self, row: Row, request: ChatType, answer: GenerateOutput, index: int) -> Row:
        """Read one generation into columns, metadata included."""
        name = self.name or f"{snake_case(type(self).__name__)}_0"
        output = answer["generations"][index]
        try:
            columns = _dict(self.format_output(output, row))
        except Exception as error:
            _log.warning("Task '%s' cannot read an answer and keeps it raw: %r", name, error)
            columns = dict.fromkeys(self.outputs)
        above = row.get(METADATA)
        metadata = {**(above if isinstance(above, dict) else {}), **(columns.get(METADATA) or {})}
        if self.add_raw_output:
            metadata[f"raw_output_{name}"] = output
        if self.add_raw_input:
            metadata[f"raw_input_{name}"] = request
        if statistics := _statistics(answer, index):
            metadata[f"statistics_{name}"] = statistics
        if metadata:
            columns[METADATA] = metadata
        extras = {key: values for key, values in answer.items() if key not in _NOT_EXTRA}
        for key, values in extras.items():
            columns[f"llm_{name}_{key}"] = _item(values, index)
        return columns


def _dict(columns: Any) -> Row:
    if not isinstance(columns, Mapping):
        raise TypeError(f"format_output must return a dict of columns, but it returned {columns!r:.200}")
    return dict(columns)


def _statistics(answer: GenerateOutput, index: int) -> dict[str, int]:
    """Return the token counts of one generation; fewer counts than generations are gone through again."""
    counts: Mapping[str, Any] = answer.get("statistics") or {}
    return {key: values[index % len(values)] for key, values in counts.items() if values}


def _item(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


def _group(generations: Batch) -> Row:
    """``[{"a": 1}, {"a": 2}]`` -> ``{"a": [1, 2]}``; a column that one generation lacks is None there."""
    columns = dict.fromkeys(column for generation in generations for column in generation)
    return {column: [generation.get(column) for generation in generations] for column in columns}
