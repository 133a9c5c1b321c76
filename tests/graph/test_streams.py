from __future__ import annotations

from typing import Any

import pytest

from distill_ray.errors import GraphError
from distill_ray.graph import check
from distill_ray.graph.mermaid import mermaid
from distill_ray.graph.streams import Convergence, convergences
from distill_ray.pipeline import Pipeline, sample_n_steps
from distill_ray.steps import GlobalStep, LoadDataFromDicts, Step, StepInput, StepOutput


class One(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Two(Step):
    def process(self, left: StepInput, right: StepInput) -> StepOutput:
        yield [*left, *right]


class Join(Step):
    def process(self, *inputs: StepInput) -> StepOutput:
        yield inputs[0]


class All(GlobalStep):
    def process(self, *inputs: StepInput) -> StepOutput:
        yield inputs[0]


@pytest.fixture
def pipeline() -> Any:
    with Pipeline(name="routed") as made:
        yield made


def load() -> LoadDataFromDicts:
    return LoadDataFromDicts(name="load", data=[{"n": 1}])


def one(name: str) -> One:
    return One(name=name)


def test_steps_between_and_the_order_of_connection_count(pipeline: Pipeline) -> None:
    a, b, c = one("a"), one("b"), one("c")
    load() >> sample_n_steps(2) >> [a, b, c]
    [c, a >> one("after"), b] >> Join(name="join")
    branches = tuple(frozenset(name) for name in "cab")
    assert convergences(pipeline.graph) == {"join": Convergence("load", branches)}


def test_a_join_of_one_branch_is_a_join_like_any_other(pipeline: Pipeline) -> None:
    a = one("a")
    load() >> sample_n_steps(1) >> [a, one("b")]
    a >> [one("x"), one("y")] >> Two(name="join")
    check(pipeline.graph)
    assert convergences(pipeline.graph) == {}


def test_all_that_is_routed_to_one_step_alone_is_all(pipeline: Pipeline) -> None:
    source = load()
    source >> sample_n_steps(1) >> [one("a")]
    [pipeline.graph.steps["a"], source >> one("b")] >> Two(name="join")
    check(pipeline.graph)
    assert convergences(pipeline.graph) == {}


def refused(pipeline: Pipeline, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        check(pipeline.graph)


def test_rows_that_were_routed_and_rows_that_were_not_are_not_joined(pipeline: Pipeline) -> None:
    source, a = load(), one("a")
    source >> sample_n_steps(1) >> [a, one("b")]
    [a, source >> one("c")] >> Join(name="join")
    refused(
        pipeline,
        r"'join'.*'a' gives those of batches of 'load' that are routed to 'a'; 'c' gives those of all",
    )


def test_rows_of_two_routings_are_not_joined(pipeline: Pipeline) -> None:
    ends = []
    for name in ("one", "two"):
        ends.append(one(f"{name}_a"))
        LoadDataFromDicts(name=name, data=[{"n": 1}]) >> sample_n_steps(1) >> [ends[-1], one(f"{name}_b")]
    ends >> Join(name="join")
    refused(pipeline, r"'join' joins rows that do not belong together")


@pytest.mark.parametrize("kind", [One, Two])
def test_a_join_takes_as_many_lists_as_a_batch_was_routed_to(pipeline: Pipeline, kind: type[Step]) -> None:
    load() >> sample_n_steps(2) >> [one("a"), one("b")] >> kind(name="join")
    refused(pipeline, r"'join'.*def process\(self, \*inputs\)")


def test_a_global_step_joins_no_batches(pipeline: Pipeline) -> None:
    load() >> sample_n_steps(2) >> [one("a"), one("b")] >> All(name="join")
    refused(pipeline, r"'join' joins batches that are routed \('a', 'b'\), but it is a global step")


def test_more_steps_than_there_are_cannot_be_sampled(pipeline: Pipeline) -> None:
    load() >> sample_n_steps(3) >> [one("a"), one("b")]
    refused(pipeline, r"'load' are routed by sample_n_steps\(3\), but there are 2 steps")


def test_what_is_written_wrongly_is_refused(pipeline: Pipeline) -> None:
    source, a, b = load(), one("a"), one("b")
    with pytest.raises(GraphError, match=r"to a list of steps, got One\(name='a'"):
        source >> sample_n_steps(1) >> a
    with pytest.raises(GraphError, match=r"'sample_n_steps\(1\)' has no rows to route: write"):
        sample_n_steps(1) >> [a, b]
    with pytest.raises(GraphError, match="The rows of one step are routed"):
        [a, b] >> sample_n_steps(1)
    with pytest.raises(GraphError, match="has no steps to route batches of 'load' to"):
        source >> sample_n_steps(1) >> []
    source.connect(a, b, routing_batch_function=sample_n_steps(1))
    with pytest.raises(GraphError, match=r"Batches of step 'load' are routed already, to 'a', 'b'"):
        source >> sample_n_steps(1) >> [one("c")]


def test_a_routed_connection_is_another_one_and_is_drawn_dotted(pipeline: Pipeline) -> None:
    load() >> sample_n_steps(1) >> [one("a"), one("b")]
    with Pipeline(name="plain") as plain:
        load() >> [one("a"), one("b")]
    assert pipeline.signature != plain.signature
    assert mermaid(pipeline.graph, show_edge_labels=False).count("s0 -.-> s") == 2
    assert "-.->" not in mermaid(plain.graph)
