"""Which settings of a step name its output, though they are no part of its function."""

from __future__ import annotations

from typing import ClassVar

import pytest

from distill_ray.cache.paths import FunctionId
from distill_ray.graph import Graph
from distill_ray.graph.output_keys import output_keys
from distill_ray.steps import GlobalStep, Step, StepInput
from distill_ray.types import StepOutput


class Plain(Step):
    version = "1"

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class RowWise(Plain):
    row_wise: ClassVar[bool] = True


class Whole(GlobalStep):
    version = "1"

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


def key_of(step: Step) -> str:
    graph = Graph.of({"step": step}, {"step": ()})
    return output_keys(graph, {"step": FunctionId(type(step).__name__, "f" * 64)})["step"]


def test_the_batch_size_of_a_step_whose_units_are_batches_names_its_output() -> None:
    assert key_of(Plain(input_batch_size=50)) != key_of(Plain(input_batch_size=20))


@pytest.mark.parametrize("kind", [RowWise, Whole])
def test_the_batch_size_of_another_step_does_not(kind: type[Step]) -> None:
    assert key_of(kind(input_batch_size=50)) == key_of(kind(input_batch_size=20))


def test_equal_steps_on_the_same_input_have_outputs_of_their_own() -> None:
    steps = {"one": RowWise(), "other": RowWise()}
    function = FunctionId("RowWise", "f" * 64)
    keys = output_keys(Graph.of(steps, {"one": (), "other": ()}), dict.fromkeys(steps, function))
    assert keys["one"] != keys["other"]
