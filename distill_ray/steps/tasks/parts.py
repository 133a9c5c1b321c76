"""A task in three: its own code before and after the model, and between them the model alone (`Answers`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from distill_ray.errors import ModelError
from distill_ray.steps.base import OnError, Step, detached
from distill_ray.steps.tasks.answers import Answers
from distill_ray.steps.tasks.task import Task, read, render
from distill_ray.types import Batch, Row, StepColumns, StepInput, StepOutput


class TaskPart(Step):
    """The task's own code, without the model.

    Attributes:
        task: the task, whose model is not loaded.
    """

    version: ClassVar[str | None] = "1"
    row_wise: ClassVar[bool] = True

    task: Task

    @property
    def inputs(self) -> StepColumns:
        """The task's."""
        return self.task.inputs

    def load(self) -> None:
        """Load the task."""
        super().load()
        self.task.load()

    def may_pass(self, error: BaseException) -> bool:
        """Return what the task says."""
        return self.task.may_pass(error)

    def unload(self) -> None:
        """Unload the task."""
        self.task.unload()
        super().unload()


class RequestRows(TaskPart):
    """Gives for each row what the model is to be asked: a row for each sample.

    Attributes:
        first_sample: the number of the first sample: equal tasks on the same rows are given answers of their
            own.
    """

    joins_input: ClassVar[bool] = False

    first_sample: int = 0

    @property
    def outputs(self) -> StepColumns:
        """The request and the number of the sample."""
        return ["request", "sample"]

    @property
    def null_rows(self) -> int:
        """One for each sample, so that all answers stay beside their rows."""
        return self.task.num_generations

    def process(self, inputs: StepInput) -> StepOutput:
        """Yield the requests."""
        samples = range(self.first_sample, self.first_sample + self.task.num_generations)
        for index, row in enumerate(inputs):
            request = render(self.task, index, row)
            yield [{"request": request, "sample": sample} for sample in samples]


class ReadAnswers(TaskPart):
    """Gives the task's rows, from its input, the requests and the answers to them."""

    @property
    def outputs(self) -> StepColumns:
        """The task's."""
        return self.task.outputs

    @property
    def strides(self) -> tuple[int, ...]:
        """For each row the requests and the answers of all samples."""
        return 1, self.task.num_generations, self.task.num_generations

    def signed_state(self) -> dict[str, Any]:
        """Return the name: metadata and columns are called by it."""
        return {"name": self.task.name}

    def tokens_of(self, rows: Sequence[Row]) -> tuple[int, int]:  # noqa: ARG002
        """Return none: they were counted where the model was asked."""
        return 0, 0

    def process(self, *inputs: StepInput) -> StepOutput:
        """Yield the rows with the answers to them."""
        rows, requests, answers = inputs
        count = self.task.num_generations
        for index, row in enumerate(rows):
            asked = slice(index * count, (index + 1) * count)
            yield self._read(index, row, requests[asked], answers[asked])

    def _read(self, index: int, row: Row, requests: Batch, answers: Batch) -> Batch:
        request = requests[0]["request"]
        if request is None:
            render(self.task, index, row)  # says what is wrong with it
        if missing := sum(answer["finish_reason"] is None for answer in answers):
            raise ModelError(
                f"{missing} of {len(answers)} answers are missing: asking for them failed, "
                "see the failed rows of the steps before this one."
            )
        return read(self.task, row, request, answers)


def parts_of(task: Task, name: str, first_sample: int) -> tuple[RequestRows, Answers, ReadAnswers]:
    """Return the steps that a task is made of: they give the same rows, one after the other.

    Args:
        task: the task.
        name: its name in the pipeline.
        first_sample: the number of its first sample.
    """
    # What fails on the way must not shift rows against each other; in the end it is the task's own affair.
    on_error: OnError = "raise" if task.on_error == "raise" else "null"
    requests = RequestRows(
        task=_without_model(task, name),
        first_sample=first_sample,
        input_mappings=task.input_mappings,
        input_batch_size=task.input_batch_size,
        on_error=on_error,
        batch_retries=task.batch_retries,
        batch_timeout=task.batch_timeout,
        use_cache=task.use_cache,
    )
    answers = Answers.of(
        task.llm,
        resources=task.resources,
        input_batch_size=task.input_batch_size * task.num_generations,
        samples=task.num_generations,
        on_error=on_error,
        transient=task.transient_errors,
        batch_retries=task.batch_retries,
        batch_timeout=task.batch_timeout,
        use_cache=task.use_cache,
    )
    rows = ReadAnswers(
        task=_without_model(task, name),
        input_mappings=task.input_mappings,
        output_mappings=task.output_mappings,
        input_batch_size=task.input_batch_size,
        on_error=task.on_error,
        batch_retries=task.batch_retries,
        batch_timeout=task.batch_timeout,
        use_cache=task.use_cache,
    )
    return requests, answers, rows


def _without_model(task: Task, name: str) -> Task:
    """Return a copy of a task whose model is there to be read, not to be asked: loading it does nothing."""
    llm = task.llm.model_copy()
    llm.__dict__.update(load=_nothing, unload=_nothing)
    return detached(task, name).model_copy(update={"llm": llm})


def _nothing() -> None:
    """What loading a model does that nobody asks."""
