from __future__ import annotations

from typing import Any

import pytest

from distill_ray.errors import ParameterError
from distill_ray.graph import Graph
from distill_ray.models import ChatType
from distill_ray.pipeline.parameters import with_parameters
from distill_ray.steps.tasks import TextGeneration


def asked(task: TextGeneration, **row: Any) -> ChatType:
    return task.format_input(row)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def test_the_instruction_is_asked_and_the_answer_is_the_generation(echo: Any) -> None:
    task = TextGeneration(name="answer", llm=echo())
    (row,) = next(task.process([{"instruction": "2+2?", "id": 7}]))
    metadata = row.pop("distilabel_metadata")
    assert row == {"instruction": "2+2?", "id": 7, "generation": "2+2? 0", "model_name": "echo"}
    assert metadata == {
        "raw_output_answer": "2+2? 0",
        "raw_input_answer": [user("2+2?")],
        "statistics_answer": {"input_tokens": 1, "output_tokens": 4},
    }


def test_inputs_and_outputs_are_distilabels(echo: Any) -> None:
    assert TextGeneration(llm=echo()).inputs == {"system_prompt": False, "instruction": True}
    assert TextGeneration(llm=echo()).outputs == ["generation", "model_name"]
    templated = TextGeneration(llm=echo(), template="{{ a }} {{ b }}", columns=["a", "b"])
    assert templated.inputs == {"system_prompt": False, "a": True, "b": True}


def test_a_rows_system_prompt_goes_before_the_tasks(echo: Any) -> None:
    task = TextGeneration(llm=echo(), system_prompt="Be brief.")
    assert asked(task, instruction="Hi") == [system("Be brief."), user("Hi")]
    assert asked(task, instruction="Hi", system_prompt="Sing.") == [system("Sing."), user("Hi")]
    assert asked(task, instruction="Hi", system_prompt=None) == [system("Be brief."), user("Hi")]
    deaf = TextGeneration(llm=echo(), use_system_prompt=False)
    assert asked(deaf, instruction="Hi", system_prompt="Sing.") == [user("Hi")]


def test_a_template_is_rendered_with_the_rows_columns(echo: Any) -> None:
    template = "{{ title }}:{% for item in items %} {{ item }}{% endfor %}"
    task = TextGeneration(llm=echo(), template=template, columns=["title", "items"])
    assert asked(task, title="List", items=["a", "b"], other=1) == [user("List: a b")]
    one = TextGeneration(llm=echo(), template="Say {{ word }}", columns="word")
    assert asked(one, word="yes") == [user("Say yes")]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"template": "{{ a }}"}, r"'t': the template uses \['a'\], which `columns` does not name"),
        ({"template": "{{ a }}", "columns": ["a", "b"]}, r"'t': `columns` names \['b'\], which the template"),
        ({"template": "{{ a "}, r"'t': the template is not valid Jinja2"),
        ({"columns": []}, r"'columns'"),
    ],
)
def test_a_template_that_does_not_fit_is_an_error_at_once(
    echo: Any, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        TextGeneration(name="t", llm=echo(), **parameters)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": 5}, "row 1 of the batch: `instruction` must be a text, got 5"),
        ({"instruction": [user("Hi")]}, "use ChatGeneration with the column `messages`"),
        ({}, "`instruction` must be a text, got None"),
    ],
)
def test_a_row_that_no_prompt_can_be_made_from_is_named(echo: Any, row: Any, message: str) -> None:
    task = TextGeneration(name="answer", llm=echo())
    with pytest.raises(ParameterError, match=f"Task 'answer', .*{message}"):
        next(task.process([{"instruction": "fine"}, row]))


def test_a_missing_column_of_a_template_is_named(echo: Any) -> None:
    task = TextGeneration(llm=echo(), template="{{ a }}", columns=["a"])
    with pytest.raises(ParameterError, match=r"the columns \['a'\] are missing; the row has \['b'\]"):
        next(task.process([{"b": 1}]))


def test_template_and_columns_may_be_given_to_a_run_together(echo: Any) -> None:
    graph = Graph()
    graph.add(TextGeneration(name="answer", llm=echo()))
    changed = with_parameters(graph, {"answer": {"template": "{{ q }}?", "columns": ["q"]}})
    task = changed.steps["answer"]
    assert isinstance(task, TextGeneration)
    assert asked(task, q="Why") == [user("Why?")]
