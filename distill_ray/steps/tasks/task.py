"""What every task is: render a request for each row, let the LLM generate, read its answers.

Rendering and reading are the task's own code (`format_input`, `format_output`); generating is the model's.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from distill_ray.errors import ParameterError, UndeclaredColumnError
from distill_ray.models.llm import LLM, ChatType
from distill_ray.steps.base import Step, label_of, snake_case
from distill_ray.steps.tasks.answers import ask
from distill_ray.types import METADATA, Batch, Row, RuntimeParameter, StepInput, StepOutput

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

    In a pipeline a task runs as three steps: ``<task>/request`` renders, ``<task>/answer`` asks the model and
    ``<task>`` reads the answers. So an answer is found again by whoever asks the model the same, and
    ``format_input`` and ``format_output`` must not ask it. A class that has a ``process`` of its own runs as
    the one step that it is; it is row-wise only if it says so itself.

    Attributes:
        llm: the model that is asked.
        group_generations: put the generations of a row in lists in one row, instead of a row for each.
        add_raw_output: keep the model's answer as it came in ``distilabel_metadata``.
        add_raw_input: keep the rendered request in ``distilabel_metadata``.
        num_generations: answers to ask for, for each row.
    """

    row_wise: ClassVar[bool] = True

    llm: LLM
    group_generations: bool = False
    add_raw_output: RuntimeParameter[bool] = True
    add_raw_input: RuntimeParameter[bool] = True
    num_generations: RuntimeParameter[int] = Field(default=1, ge=1)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Believe of a class with a ``process`` of its own that it is row-wise only where it says so."""
        super().__pydantic_init_subclass__(**kwargs)
        if "process" in vars(cls) and "row_wise" not in vars(cls):
            cls.row_wise = False

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

    def process(self, inputs: StepInput) -> StepOutput:
        """Yield the rows with the answers to them."""
        count = self.num_generations
        requests = [render(self, index, row) for index, row in enumerate(inputs)]
        answers = ask(self.llm, [(request, sample) for request in requests for sample in range(count)])
        yield [
            answered
            for index, row in enumerate(inputs)
            for answered in read(self, row, requests[index], answers[index * count : (index + 1) * count])
        ]


def render(task: Task, index: int, row: Row) -> ChatType:
    """Render the request for a row, the ``index``-th of the batch."""
    try:
        return task.format_input(row)
    except ParameterError as error:
        raise ParameterError(f"Task '{label_of(task)}', row {index} of the batch: {error}") from error


def read(task: Task, row: Row, request: ChatType, answers: Sequence[Row]) -> Batch:
    """Return the output rows of one input row, from the answers to its request.

    Raises:
        UndeclaredColumnError: ``format_output`` reads a column that the task does not declare.
    """
    parsed = [_parse(task, row, request, answer) for answer in answers]
    if task.group_generations:
        parsed = [_group(parsed)]
    return [{**row, **columns, "model_name": answers[0]["model_name"]} for columns in parsed]


def _parse(task: Task, row: Row, request: ChatType, answer: Row) -> Row:
    """Read one answer into columns, metadata included."""
    name, output = _name_of(task), answer["generation"]
    try:
        columns = _dict(task.format_output(output, row))
    except UndeclaredColumnError:
        raise
    except Exception as error:
        _log.warning("Task '%s' cannot read an answer and keeps it raw: %r", name, error)
        columns = dict.fromkeys(task.outputs)
    above = dict(row).get(METADATA)  # a row-wise step's row refuses to be asked for it
    metadata = {**(above if isinstance(above, dict) else {}), **(columns.get(METADATA) or {})}
    if task.add_raw_output:
        metadata[f"raw_output_{name}"] = output
    if task.add_raw_input:
        metadata[f"raw_input_{name}"] = request
    if answer["statistics"]:
        metadata[f"statistics_{name}"] = answer["statistics"]
    if metadata:
        columns[METADATA] = metadata
    return {**columns, **{f"llm_{name}_{key}": each for key, each in (answer["extras"] or {}).items()}}


def _name_of(task: Task) -> str:
    return task.name or f"{snake_case(type(task).__name__)}_0"


def _dict(columns: Any) -> Row:
    if not isinstance(columns, Mapping):
        raise TypeError(f"format_output must return a dict of columns, but it returned {columns!r:.200}")
    return dict(columns)


def _group(generations: Batch) -> Row:
    """``[{"a": 1}, {"a": 2}]`` -> ``{"a": [1, 2]}``; a column that one generation lacks is None there."""
    columns = dict.fromkeys(column for generation in generations for column in generation)
    return {column: [generation.get(column) for generation in generations] for column in columns}
