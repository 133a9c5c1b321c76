from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from distill_ray.errors import GraphError, ParameterError
from distill_ray.steps import GeneratorStep, GlobalStep, RuntimeParameter, Step, StepInput, step
from distill_ray.steps.marks import is_runtime_parameter

if TYPE_CHECKING:
    from distill_ray.steps import GeneratorStepOutput, StepOutput


@step(inputs=["text"], outputs=["length"])
def Measure(inputs: StepInput, factor: RuntimeParameter[int] = 1) -> StepOutput:
    """Measures texts."""
    yield [{**row, "length": factor * len(row["text"])} for row in inputs]


@step(outputs=["total"], step_type="global")
def add_up(inputs: StepInput, start: RuntimeParameter[int]) -> StepOutput:
    yield [{"total": start + sum(row["n"] for row in inputs)}]


@step(outputs=["n"], step_type="generator")
def count_to(stop: RuntimeParameter[int] = 5) -> GeneratorStepOutput:
    for n in range(0, stop, 2):
        yield [{"n": k} for k in range(n, min(n + 2, stop))], n + 2 >= stop


@step(outputs=["n"], step_type="generator")
def count_from(offset: int = 0) -> GeneratorStepOutput:
    yield [{"n": offset}], True


def test_the_class_has_the_functions_name_module_and_text() -> None:
    assert (Measure.__name__, Measure.__module__, Measure.__doc__) == ("Measure", __name__, "Measures texts.")
    assert issubclass(Measure, Step)
    assert issubclass(add_up, GlobalStep)
    assert issubclass(count_to, GeneratorStep)


def test_inputs_and_outputs_are_those_given() -> None:
    assert (Measure().inputs, Measure().outputs) == (["text"], ["length"])
    assert count_to().inputs == []


def test_a_runtime_parameter_of_the_function_is_a_parameter_of_the_step() -> None:
    assert next(Measure(factor=3).process([{"text": "ab"}])) == [{"text": "ab", "length": 6}]
    assert is_runtime_parameter(Measure.model_fields["factor"])
    with pytest.raises(ParameterError, match="Measure: 'factor'"):
        Measure(factor="three")


def test_a_parameter_without_default_may_be_given_later_but_must_be_given() -> None:
    made = add_up(name="sum")
    assert is_runtime_parameter(add_up.model_fields["start"])
    with pytest.raises(ParameterError, match="Step 'sum' has no value for start"):
        made.process([{"n": 1}])
    made.start = 10
    assert next(made.process([{"n": 1}])) == [{"total": 11}]


def test_a_generator_function_without_offset_drops_the_rows_before_it() -> None:
    assert list(count_to().process(offset=3)) == [([{"n": 3}], False), ([{"n": 4}], True)]
    assert list(count_to().process(offset=5)) == [([], True)]


def test_a_generator_function_with_offset_is_given_it() -> None:
    assert list(count_from().process(offset=7)) == [([{"n": 7}], True)]


def test_several_predecessors_are_several_parameters() -> None:
    @step()
    def zip_rows(left: StepInput, right: StepInput) -> StepOutput:
        yield [{**a, **b} for a, b in zip(left, right, strict=True)]

    @step()
    def count_inputs(*inputs: StepInput) -> StepOutput:
        yield [{"inputs": len(inputs)}]

    assert next(zip_rows().process([{"a": 1}], [{"b": 2}])) == [{"a": 1, "b": 2}]
    assert next(count_inputs().process([], [], [])) == [{"inputs": 3}]


def test_a_step_made_from_a_function_travels_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(Measure(factor=2)))
    assert next(copy.process([{"text": "abc"}])) == [{"text": "abc", "length": 6}]


def test_a_wrong_kind_is_an_error() -> None:
    with pytest.raises(GraphError, match="one of normal, global, generator, got 'odd'"):
        step(step_type="odd")  # type: ignore[arg-type]


def test_a_function_without_a_place_for_rows_is_an_error() -> None:
    def no_rows(factor: RuntimeParameter[int] = 1) -> Iterator[Any]:
        yield []

    with pytest.raises(GraphError, match="'no_rows' has no parameter for rows"):
        step()(no_rows)


def test_a_generator_function_with_a_place_for_rows_is_an_error() -> None:
    def makes_rows(size: int) -> Iterator[Any]:
        yield [], True

    with pytest.raises(GraphError, match=r"annotate size as RuntimeParameter"):
        step(step_type="generator")(makes_rows)


def test_a_decorator_without_parentheses_is_told_so() -> None:
    with pytest.raises(GraphError, match=r"@step wants parentheses: write `@step\("):
        step(lambda inputs: iter([inputs]))  # type: ignore[arg-type]
