from __future__ import annotations

import logging
from typing import Any

import pytest

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models import ChatType, GenerateOutput
from distill_ray.steps import StepColumns
from distill_ray.steps.tasks import Task, TextGeneration
from distill_ray.types import Row

METADATA = "distilabel_metadata"


class Number(Task):
    """Asks for a text and reads a number at its end."""

    @property
    def inputs(self) -> StepColumns:
        return ["text"]

    @property
    def outputs(self) -> StepColumns:
        return ["number", "model_name"]

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 - distilabel's name
        return [{"role": "user", "content": input["text"]}]

    def format_output(self, output: str | None, input: Row) -> Row:  # noqa: A002 - distilabel's name
        assert output is not None
        return {"number": int(output.split()[0])}


def test_each_generation_is_a_row(echo: Any) -> None:
    task = TextGeneration(name="t", llm=echo(), num_generations=2)
    rows = next(task.process([{"instruction": "a"}, {"instruction": "b"}]))
    assert [row["generation"] for row in rows] == ["a 0", "a 1", "b 0", "b 1"]
    assert [row[METADATA]["raw_output_t"] for row in rows] == ["a 0", "a 1", "b 0", "b 1"]


def test_grouped_generations_are_lists_in_one_row(echo: Any) -> None:
    task = TextGeneration(name="t", llm=echo(), num_generations=2, group_generations=True)
    (row,) = next(task.process([{"instruction": "a"}]))
    assert row["generation"] == ["a 0", "a 1"]
    assert row["model_name"] == "echo"
    assert [each["raw_output_t"] for each in row[METADATA]] == ["a 0", "a 1"]
    assert [each["statistics_t"] for each in row[METADATA]] == [{"input_tokens": 1, "output_tokens": 1}] * 2


def test_raw_input_and_output_may_be_left_out(echo: Any) -> None:
    task = TextGeneration(name="t", llm=echo(), add_raw_input=False, add_raw_output=False)
    (row,) = next(task.process([{"instruction": "a"}]))
    assert row[METADATA] == {"statistics_t": {"input_tokens": 1, "output_tokens": 1}}


def test_what_the_tasks_before_put_into_the_metadata_stays(echo: Any) -> None:
    first = TextGeneration(name="first", llm=echo())
    second = TextGeneration(name="second", llm=echo(), input_mappings={"instruction": "generation"})
    rows = next(first.process([{"instruction": "a"}]))
    (row,) = next(second.process(rows))
    assert {key for key in row[METADATA] if key.startswith("raw_output")} == {
        "raw_output_first",
        "raw_output_second",
    }


def test_other_outputs_of_the_model_become_columns(echo: Any) -> None:
    task = TextGeneration(name="t", llm=echo(with_logprobs=True), num_generations=2)
    rows = next(task.process([{"instruction": "a"}]))
    assert [row["llm_t_logprobs"] for row in rows] == [[[{"token": str(n), "logprob": -1.0}]] for n in (0, 1)]


def test_an_answer_that_cannot_be_read_gives_none_and_is_kept_raw(
    echo: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task = Number(name="n", llm=echo())
    with caplog.at_level(logging.WARNING):
        rows = next(task.process([{"text": "five"}, {"text": "5"}]))
    assert [row["number"] for row in rows] == [None, 5]
    assert rows[0]["model_name"] == "echo"
    assert rows[0][METADATA]["raw_output_n"] == "five 0"
    assert "Task 'n' cannot read an answer" in caplog.text


def test_an_output_that_is_no_dict_is_told(echo: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Number):
        def format_output(self, output: str | None, input: Row) -> Any:  # noqa: A002 - distilabel's name
            return output

    with caplog.at_level(logging.WARNING):
        next(Wrong(name="w", llm=echo()).process([{"text": "5"}]))
    assert "format_output must return a dict of columns, but it returned '5 0'" in caplog.text


def test_a_model_that_gives_no_answer_gives_none(echo: Any) -> None:
    (row,) = next(TextGeneration(llm=echo(silent=True)).process([{"instruction": "a"}]))
    assert row["generation"] is None


def test_generation_kwargs_reach_the_model(echo: Any) -> None:
    task = TextGeneration(llm=echo(generation_kwargs={"suffix": "!"}))
    assert next(task.process([{"instruction": "a"}]))[0]["generation"] == "a! 0"
    with pytest.raises(ParameterError, match=r"generation_kwargs of Echo has no 'sufix'.*suffix"):
        echo(generation_kwargs={"sufix": "!"})


def test_the_model_is_loaded_and_unloaded_with_the_task(echo: Any) -> None:
    llm = echo()
    task = TextGeneration(llm=llm)
    task.load()
    task.unload()
    assert llm.loads == ["load", "unload"]


def test_a_model_that_gives_another_number_of_answers_is_an_error(echo: Any) -> None:
    class Forgetful(echo):  # type: ignore[misc]
        drop: bool = True

        def generate(self, inputs: list[ChatType], num_generations: int = 1) -> list[GenerateOutput]:
            outputs: list[GenerateOutput] = super().generate(inputs, 1)
            return outputs[1:] if self.drop else outputs

    with pytest.raises(ModelError, match="Forgetful gave 0 outputs for 1 inputs"):
        next(TextGeneration(name="t", llm=Forgetful()).process([{"instruction": "a"}]))
    task = TextGeneration(name="t", llm=Forgetful(drop=False), num_generations=2)
    with pytest.raises(ModelError, match="gave 1 generations for an input, 2 were asked for"):
        next(task.process([{"instruction": "a"}]))
