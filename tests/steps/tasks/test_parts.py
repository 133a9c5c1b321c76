"""The three steps of a task give what the task itself gives."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import Field, PrivateAttr

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models import ChatType
from distill_ray.steps import StepColumns
from distill_ray.steps.signing import step_function
from distill_ray.steps.tasks import Task, TextGeneration
from distill_ray.steps.tasks.answers import Answers
from distill_ray.steps.tasks.parts import parts_of
from distill_ray.types import METADATA, Row, RowFailure


class Rate(Task):
    """Rates a text; refuses texts that begin with a minus."""

    loads: list[str] = Field(default_factory=list)
    exclude_from_signature: frozenset[str] = frozenset({"loads"})

    @property
    def inputs(self) -> StepColumns:
        return ["text"]

    @property
    def outputs(self) -> StepColumns:
        return ["rating", "model_name"]

    def load(self) -> None:
        super().load()
        self.loads.append("task")

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 - distilabel's name
        if input["text"].startswith("-"):
            raise ParameterError("no minus")
        return [{"role": "user", "content": input["text"]}]

    def format_output(self, output: str | None, input: Row) -> Row:  # noqa: A002 - distilabel's name
        return {"rating": len(output or ""), METADATA: {"of": input["text"]}}


def answered(answers: Answers, asked: list[Row]) -> list[Row]:
    """What the model answers where it does not fail."""
    return [each for made in answers.process(asked) if not isinstance(made, RowFailure) for each in made]


def in_parts(task: Task, rows: list[Row]) -> list[Row]:
    requests, answers, reading = parts_of(task, task.name or "t", first_sample=0)
    for part in (requests, answers, reading):
        part.load()
    asked = [each for batch in requests.process(rows) for each in batch]
    return [each for batch in reading.process(rows, asked, answered(answers, asked)) for each in batch]


def in_order(rows: list[Row]) -> list[Any]:
    return [list(row.items()) for row in rows]


@pytest.mark.parametrize("model", [{}, {"with_logprobs": True}, {"silent": True}])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"group_generations": True},
        {"add_raw_input": False, "add_raw_output": False},
        {"add_raw_input": False, "group_generations": True},
    ],
)
@pytest.mark.parametrize("kind", [TextGeneration, Rate])
def test_the_parts_give_the_rows_of_the_task(
    echo: Any, model: dict[str, Any], count: int, options: dict[str, Any], kind: type[Task]
) -> None:
    task = kind(name="t", llm=echo(**model), num_generations=count, **options)
    rows: list[Row] = [
        {"instruction": "a", "text": "b", "id": 1},
        {METADATA: {"raw_output_before": "x"}, "instruction": "c", "text": "d"},
        {"generation": "old", "instruction": "a", "text": "b"},
    ]
    assert in_order(in_parts(task, rows)) == in_order(next(task.process(rows)))


def test_only_the_answering_part_loads_the_model(echo: Any) -> None:
    task = Rate(name="t", llm=echo())
    requests, answers, reading = parts_of(task, "t", first_sample=0)
    for part in (requests, reading):
        part.load()
        part.unload()
    assert task.llm.loads == []  # type: ignore[attr-defined]
    answers.load()
    answers.unload()
    assert task.llm.loads == ["load", "unload"]  # type: ignore[attr-defined]
    assert task.loads == ["task", "task"]
    sent = pickle.loads(pickle.dumps(requests.task.llm))
    sent.load()
    assert sent.model_name == "echo"


def test_the_parts_run_as_the_task_says(echo: Any) -> None:
    task = TextGeneration(
        name="t",
        llm=echo(),
        num_generations=3,
        input_batch_size=10,
        resources={"gpus": 1, "replicas": 4},
        use_cache=False,
        on_error="skip",
        input_mappings={"instruction": "prompt"},
        output_mappings={"generation": "answer"},
    )
    requests, answers, reading = parts_of(task, "t", first_sample=0)
    assert answers.resources == task.resources
    assert requests.resources.gpus is reading.resources.gpus is None
    assert requests.resources.replicas == reading.resources.replicas == 1
    assert [each.input_batch_size for each in (requests, answers, reading)] == [10, 30, 10]
    assert not any(each.use_cache for each in (requests, answers, reading))
    assert [each.on_error for each in (requests, answers, reading)] == ["null", "null", "skip"]
    assert requests.input_mappings == reading.input_mappings == task.input_mappings
    assert reading.output_mappings == task.output_mappings
    assert answers.input_mappings == answers.output_mappings == requests.output_mappings == {}
    assert reading.strides == (1, 3, 3)
    assert (reading.inputs, reading.outputs) == (task.inputs, task.outputs)


def test_the_request_of_a_row_is_asked_for_once_for_each_sample(echo: Any) -> None:
    requests, _, _ = parts_of(TextGeneration(llm=echo(), num_generations=2), "t", first_sample=4)
    (rows,) = requests.process([{"instruction": "a"}])
    request = [{"role": "user", "content": "a"}]
    assert rows == [{"request": request, "sample": 4}, {"request": request, "sample": 5}]


def test_a_missing_answer_fails_its_row(echo: Any) -> None:
    _, answers, reading = parts_of(TextGeneration(llm=echo(), num_generations=2), "t", first_sample=0)
    (asked,) = parts_of(TextGeneration(llm=echo(), num_generations=2), "t", 0)[0].process(
        [{"instruction": "a"}]
    )
    missing = [answered(answers, asked)[0], dict.fromkeys(answers.outputs)]
    with pytest.raises(ModelError, match="1 of 2 answers are missing"):
        list(reading.process([{"instruction": "a"}], asked, missing))


def test_a_request_that_could_not_be_rendered_fails_its_row_with_the_reason(echo: Any) -> None:
    _, answers, reading = parts_of(Rate(name="t", llm=echo()), "t", first_sample=0)
    asked = [{"request": None, "sample": None}]
    with pytest.raises(ParameterError, match="Task 't', row 0 of the batch: no minus"):
        list(reading.process([{"text": "-1"}], asked, answered(answers, asked)))


def test_the_name_is_signed_where_rows_hold_it(echo: Any) -> None:
    task = TextGeneration(llm=echo())
    old = [step_function(part).signature for part in parts_of(task, "old", first_sample=0)]
    new = [step_function(part).signature for part in parts_of(task, "new", first_sample=0)]
    assert old[:2] == new[:2]
    assert old[2] != new[2]


def test_what_the_task_s_own_code_may_use_is_signed_on_both_sides_of_the_model(echo: Any) -> None:
    def signatures(**fields: Any) -> list[str]:
        parts = parts_of(TextGeneration(name="t", **{"llm": echo(), **fields}), "t", first_sample=0)
        return [step_function(part).signature for part in parts]

    plain = signatures()
    for changed in (
        {"system_prompt": "Be brief."},
        {"template": "{{ instruction }}!"},
        {"group_generations": True},
        {"num_generations": 2},
        {"add_raw_output": False},
        {"input_mappings": {"instruction": "prompt"}},
    ):
        found = signatures(**changed)
        assert [a == b for a, b in zip(found, plain, strict=True)] == [False, True, False], changed
    found = signatures(llm=echo(generation_kwargs={"suffix": "!"}))
    assert [a == b for a, b in zip(found, plain, strict=True)] == [False, False, False]


def test_private_attributes_of_the_task_are_signed(echo: Any) -> None:
    class Marked(TextGeneration):
        _mark: str = ""

    def signatures(mark: str) -> list[str]:
        task = Marked(llm=echo())
        task._mark = mark
        return [step_function(part).signature for part in parts_of(task, "t", first_sample=0)]

    assert [a == b for a, b in zip(signatures("a"), signatures("b"), strict=True)] == [False, True, False]


def test_what_a_part_gathers_stays_in_it(echo: Any) -> None:
    class Gathering(TextGeneration):
        _seen: list[str] = PrivateAttr(default_factory=list)

        def format_input(self, input: Row) -> ChatType:  # noqa: A002 - distilabel's name
            self._seen.append(input["instruction"])
            return super().format_input(input)

    task = Gathering(llm=echo())
    requests, _, reading = parts_of(task, "t", first_sample=0)
    list(requests.process([{"instruction": "a"}]))
    assert task._seen == reading.task._seen == []  # type: ignore[attr-defined]


def test_a_class_with_a_process_of_its_own_is_row_wise_only_where_it_says_so() -> None:
    class Own(TextGeneration):
        def process(self, inputs: Any) -> Any:
            yield from super().process(inputs)

    class Below(Own):
        pass

    class Declared(Own):
        row_wise = True

    assert TextGeneration.row_wise
    assert not Own.row_wise
    assert not Below.row_wise
    assert Declared.row_wise


def test_tokens_are_counted_where_they_are_spent(echo: Any) -> None:
    task = TextGeneration(name="t", llm=echo(), num_generations=2)
    (rows,) = task.process([{"instruction": "abc"}])
    assert task.tokens_of(rows) == (2, 6)
    grouped = task.model_copy(update={"group_generations": True})
    (rows,) = grouped.process([{"instruction": "abc"}])
    assert grouped.tokens_of(rows) == (2, 6)
    assert parts_of(task, "t", first_sample=0)[2].tokens_of(rows) == (0, 0)
    assert task.tokens_of([{METADATA: "anything"}, {METADATA: {"statistics_t": 3}}, {}]) == (0, 0)
