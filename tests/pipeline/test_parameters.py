from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, model_validator

from distill_ray.errors import ParameterError
from distill_ray.graph import Graph
from distill_ray.models import OpenAILLM
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.parameters import check_given, with_parameters
from distill_ray.steps import LoadDataFromDicts, RuntimeParameter, Step, StepInput, StepResources
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import StepOutput


class Between(Step):
    low: RuntimeParameter[int] = 0
    high: RuntimeParameter[int] = 10
    fixed: int = 1

    @model_validator(mode="after")
    def _check(self) -> Between:
        if self.low > self.high:
            raise ValueError(f"{self.low} is above {self.high}")
        return self

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Wanting(Step):
    factor: RuntimeParameter[int]
    hint: RuntimeParameter[str | None] = None

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Described(Step):
    """As distilabel's guide declares what a run must give."""

    first: RuntimeParameter[str] = Field(default=None, description="not yet")  # type: ignore[assignment]
    second: RuntimeParameter[int] = None  # type: ignore[assignment]

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


def graph_of(step: Step) -> Graph:
    graph = Graph()
    graph.add(step)
    return graph


def changed(step: Step, values: Any) -> Any:
    return with_parameters(graph_of(step), {"s": values}).steps["s"]


def generation(**generation_kwargs: Any) -> TextGeneration:
    return TextGeneration(name="s", llm=OpenAILLM(model="m", generation_kwargs=generation_kwargs))


def test_values_are_set_on_a_copy() -> None:
    step = Between(name="s")
    assert changed(step, {"low": 5}).low == 5
    assert step.low == 0


def test_values_that_are_valid_together_are_taken_together() -> None:
    step = changed(Between(name="s"), {"low": 20, "high": 30})
    assert (step.low, step.high) == (20, 30)
    with pytest.raises(ParameterError, match=r"Step 's' \(Between\): 20 is above 10"):
        changed(Between(name="s"), {"low": 20})


def test_generation_kwargs_that_a_run_does_not_give_stay() -> None:
    step = generation(temperature=0.1, max_new_tokens=7)
    task = changed(step, {"llm": {"generation_kwargs": {"temperature": 0.9}}})
    assert task.llm.generation_kwargs == {"temperature": 0.9, "max_new_tokens": 7}
    assert step.llm.generation_kwargs == {"temperature": 0.1, "max_new_tokens": 7}


def test_a_whole_model_may_be_given() -> None:
    other = OpenAILLM(model="other")
    assert changed(generation(), {"llm": other}).llm.model_name == "other"


def test_resources_may_be_given() -> None:
    step = Between(name="s", resources=StepResources(replicas=2))
    resources = changed(step, {"resources": {"cpus": 3}}).resources
    assert (resources.replicas, resources.cpus) == (2, 3)
    assert changed(step, {"resources": {"replicas": [1, 4]}}).resources.replicas == (1, 4)


@pytest.mark.parametrize(
    ("step", "values", "message"),
    [
        (Between(name="s"), {"lo": 1}, r"no runtime parameter 'lo' of step 's'.*'high', .*'low'"),
        (Between(name="s"), {"fixed": 1}, r"no runtime parameter 'fixed' of step 's'"),
        (Between(name="s"), {"low": "x"}, r"Step 's' \(Between\): 'low': .* got 'x'"),
        (Between(name="s"), [1], r"Parameters of step 's' must be \{parameter: value\}, got \[1\]"),
        (
            generation(),
            {"llm": {"modle": 1}},
            r"no runtime parameter 'modle' of step 's', 'llm'.*generation_kw",
        ),
        (
            generation(),
            {"llm": {"generation_kwargs": {"temp": 1}}},
            r"has no 'temp'\. Valid names: .*temperature",
        ),
    ],
)
def test_what_cannot_be_given_is_named_with_what_can(step: Step, values: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        changed(step, values)


def test_an_unknown_step_is_answered_with_those_there_are() -> None:
    with pytest.raises(ParameterError, match="given for step 'x', but the steps are: 's'"):
        with_parameters(graph_of(Between(name="s")), {"x": {}})


def test_a_runtime_parameter_that_nobody_gave_is_named() -> None:
    step = Wanting(name="s")  # type: ignore[call-arg]
    with pytest.raises(
        ParameterError, match=r"'s' lacks .* 'factor': run\(parameters=\{'s': \{'factor': \.\.\.\}\}\)"
    ):
        check_given(graph_of(step))
    check_given(with_parameters(graph_of(step), {"s": {"factor": 3}}))


def test_copies_join_no_pipeline() -> None:
    with Pipeline(name="p") as pipeline:
        LoadDataFromDicts(name="load", data=[]) >> Between(name="s")
        with_parameters(pipeline.graph, {"s": {"low": 1}})
    assert list(pipeline.graph.steps) == ["load", "s"]


def test_none_as_the_default_waits_for_the_run() -> None:
    with pytest.raises(ParameterError, match="'s' lacks its runtime parameter 'second'"):
        check_given(graph_of(changed_step := changed(Described(name="s"), {"first": "given"})))
    assert (changed_step.first, changed_step.second) == ("given", None)
    check_given(graph_of(changed(changed_step, {"second": 2})))


def test_other_values_are_checked_although_none_is_the_default() -> None:
    with pytest.raises(ParameterError, match="'second': Input should be a valid integer"):
        changed(Described(name="s"), {"second": "many"})


def test_parameters_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(
        ParameterError, match=r"`parameters` must be \{step name: \{parameter: value\}\}, got \[1\]"
    ):
        with_parameters(graph_of(Between(name="s")), [1])  # type: ignore[arg-type]
