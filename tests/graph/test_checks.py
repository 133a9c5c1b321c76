from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from pydantic import Field

from distill_ray.errors import GraphError
from distill_ray.graph import Graph, check
from distill_ray.steps import (
    GeneratorStep,
    KeepColumns,
    LoadDataFromDicts,
    Step,
    StepColumns,
    StepInput,
    step,
)
from distill_ray.steps.base import BaseStep
from distill_ray.types import GeneratorStepOutput, StepOutput


class Numbers(GeneratorStep):
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        yield [{"n": offset}], True


class Add(Step):
    wants: StepColumns = Field(default=["x"])
    makes: StepColumns = Field(default=["y"])

    @property
    def inputs(self) -> StepColumns:
        return self.wants

    @property
    def outputs(self) -> StepColumns:
        return self.makes

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Join(Add):
    def process(self, left: StepInput, right: StepInput) -> StepOutput:  # type: ignore[override]
        yield left + right


class JoinAll(Add):
    def process(self, *inputs: StepInput) -> StepOutput:
        yield inputs[0]


def line(*steps: BaseStep) -> Graph:
    """Steps one after the other."""
    graph = Graph()
    names = [graph.add(each) for each in steps]
    for upstream, downstream in pairwise(names):
        graph.connect(upstream, downstream)
    return graph


def fan(last: BaseStep, *sources: BaseStep) -> Graph:
    """Several steps that flow into one."""
    graph = Graph()
    name = graph.add(last)
    for source in sources:
        graph.connect(graph.add(source), name)
    return graph


def load(name: str = "load", **columns: int) -> LoadDataFromDicts:
    return LoadDataFromDicts(name=name, data=[columns or {"x": 1}])


def refused(graph: Graph, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        check(graph)


def test_a_pipeline_without_steps_is_refused() -> None:
    refused(Graph(), r"has no steps: create them inside `with Pipeline")


def test_a_step_that_is_given_no_rows_is_refused() -> None:
    refused(line(Add(name="add")), r"Step 'add' is given no rows: connect a step .* or pass `dataset=`")


def test_a_generator_that_is_connected_to_nothing_is_refused_unless_it_is_alone() -> None:
    check(line(Numbers()))
    graph = line(load(), Add())
    graph.add(Numbers(name="numbers"))
    refused(graph, "Generator step 'numbers' is connected to nothing")


def test_a_column_that_no_step_makes_is_refused() -> None:
    refused(
        line(load(), Add(name="add", wants=["x", "z"])),
        r"Step 'add' needs the column 'z', which no step before it makes: 'x'\. Use `input_mappings=\{'z'",
    )


def test_a_column_may_come_from_any_step_above() -> None:
    check(line(load(), Add(), KeepColumns(columns=["y"]), Add(wants=["x"])))


def test_columns_go_by_the_names_that_mappings_give_them() -> None:
    check(line(load(a=1), Add(input_mappings={"x": "a"}, output_mappings={"y": "b"}), Add(wants=["b"])))
    refused(line(load(), Add(output_mappings={"y": "b"}), Add(name="second", wants=["y"])), "'second' .* 'y'")


def test_a_column_that_is_not_required_may_be_missing() -> None:
    check(line(load(), Add(wants={"x": True, "z": False})))
    refused(line(load(), Add(name="add", wants={"z": True})), "'add' needs the column 'z'")


def test_a_generator_that_declares_no_columns_may_make_any() -> None:
    check(line(Numbers(), Add(wants=["whatever"])))


@pytest.mark.parametrize("mapping", ["input_mappings", "output_mappings"])
def test_a_mapping_of_a_column_that_the_step_has_not_is_refused(mapping: str) -> None:
    refused(line(load(), Add(name="add", **{mapping: {"z": "x"}})), rf"'add': `{mapping}` renames 'z', but")


@pytest.mark.parametrize("mapping", ["input_mappings", "output_mappings"])
def test_a_mapping_of_two_names_to_one_column_is_refused(mapping: str) -> None:
    both = Add(name="add", wants=["x", "y"], makes=["x", "y"], **{mapping: {"x": "a", "y": "a"}})
    refused(line(load(), both), rf"'add': `{mapping}` gives the column 'a' to several names")


def test_a_step_is_given_as_many_inputs_as_it_follows_steps() -> None:
    check(fan(Join(), load("a"), load("b")))
    check(fan(JoinAll(), load("a"), load("b"), load("c")))
    refused(
        fan(Add(name="add"), load("a"), load("b")), r"Step 'add' follows 2 steps \('a', 'b'\).* takes 1 input"
    )
    refused(fan(Join(name="join"), load("a")), r"Step 'join' follows 1 step \('a'\).* takes 2 inputs")


def test_a_step_made_from_a_function_counts_its_places_for_rows() -> None:
    @step()
    def zip_rows(left: StepInput, right: StepInput) -> Iterator[Any]:
        yield left + right

    check(fan(zip_rows(), load("a"), load("b")))
    refused(fan(zip_rows(name="zip"), load("a")), "'zip' follows 1 step .* takes 2 inputs")


def test_a_process_that_wants_what_nothing_gives_is_refused() -> None:
    class Picky(Add):
        def process(self, inputs: StepInput, *, mood: str) -> StepOutput:  # type: ignore[override]
            yield inputs

    refused(line(load(), Picky(name="picky")), "'picky': its `process` wants 'mood'")


def test_a_generator_whose_process_takes_no_offset_is_refused() -> None:
    class NoOffset(GeneratorStep):
        def process(self) -> GeneratorStepOutput:  # type: ignore[override]
            yield [], True

    class Wrong(GeneratorStep):
        def process(self, inputs: StepInput, offset: int = 0) -> GeneratorStepOutput:  # type: ignore[override]
            yield inputs, True

    refused(line(NoOffset(name="none"), Add()), r"'none': its `process` does not take `offset`")
    refused(line(Wrong(name="wrong"), Add()), r"'wrong' is given no rows, but its `process` wants 'inputs'")


def test_a_loader_is_asked_once_for_its_columns_however_many_steps_follow() -> None:
    asked: list[str] = []

    class Asked(Numbers):
        @property
        def outputs(self) -> StepColumns:
            asked.append("outputs")
            return ["x"]

    check(line(Asked(), *(Add() for _ in range(5))))
    assert asked == ["outputs"]


class Method(Add):
    def inputs(self) -> StepColumns:  # type: ignore[override]
        return ["x"]


class Text(Add):
    @property
    def outputs(self) -> Any:
        return "y"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Method, "'a': `inputs` must be a list of columns .*; write `@property` above it"),
        (Text, "'a': `outputs` must be a list of columns .*; got 'y'"),
    ],
)
def test_columns_that_are_no_list_are_refused(wrong: type[Step], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        check(line(LoadDataFromDicts(data=[{"x": 1}]), wrong(name="a")))


@pytest.mark.parametrize("wrong", [ValueError, None, ("ValueError",), (ValueError, KeyboardInterrupt)])
def test_what_may_pass_must_be_exceptions(wrong: Any) -> None:
    class Retried(Add):
        transient_errors = wrong

    steps: dict[str, BaseStep] = {"load": LoadDataFromDicts(data=[{"x": 1}]), "retried": Retried()}
    with pytest.raises(GraphError, match=r"'retried': `transient_errors` must be a tuple of classes.*; got"):
        check(Graph.of(steps, {"load": [], "retried": ["load"]}))
