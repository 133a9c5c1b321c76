from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.errors import GraphError
from distill_ray.graph import Graph
from distill_ray.steps import GeneratorStep, KeepColumns, LoadDataFromDicts, Step, StepInput
from distill_ray.types import GeneratorStepOutput, StepOutput


class Numbers(GeneratorStep):
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        yield [], True


class Node(Step):
    def process(self, *inputs: StepInput) -> StepOutput:
        yield inputs[0]


def graph_of(*names: str, edges: tuple[tuple[str, str], ...] = ()) -> Graph:
    graph = Graph()
    for name in names:
        graph.add(Node(name=name))
    for upstream, downstream in edges:
        graph.connect(upstream, downstream)
    return graph


def test_names_are_inferred_from_the_class_and_counted() -> None:
    graph = Graph()
    names = [graph.add(step) for step in (Node(), Node(), Numbers(), Node(name="node_2"), Node())]
    assert names == ["node_0", "node_1", "numbers_0", "node_2", "node_3"]


def test_two_steps_of_one_name_are_an_error_that_names_both_classes() -> None:
    graph = graph_of("a")
    with pytest.raises(GraphError, match=r"Two steps .* named 'a' \(Node and KeepColumns\)"):
        graph.add(KeepColumns(name="a", columns=["x"]))


def test_predecessors_come_in_the_order_in_which_they_were_connected() -> None:
    graph = graph_of("a", "b", "c", edges=(("b", "c"), ("a", "c")))
    assert graph.predecessors("c") == ("b", "a")
    assert graph.successors("a") == ("c",)
    assert graph.leaves() == ("c",)


@pytest.mark.parametrize(
    ("upstream", "downstream", "message"),
    [
        ("a", "a", "Connecting 'a' to 'a' closes a cycle"),
        ("c", "a", "Connecting 'c' to 'a' closes a cycle"),
        ("a", "b", "'a' is connected to 'b' twice"),
        ("a", "x", "Step 'x' is not in this pipeline: 'a', 'b', 'c'"),
        ("x", "a", "Step 'x' is not in this pipeline"),
    ],
)
def test_a_connection_that_cannot_be_is_an_error(upstream: str, downstream: str, message: str) -> None:
    graph = graph_of("a", "b", "c", edges=(("a", "b"), ("b", "c")))
    with pytest.raises(GraphError, match=message):
        graph.connect(upstream, downstream)


def test_nothing_flows_into_a_generator() -> None:
    graph = graph_of("a")
    graph.add(Numbers(name="numbers"))
    with pytest.raises(GraphError, match="'a' cannot flow into step 'numbers', a generator step"):
        graph.connect("a", "numbers")


def test_the_signature_knows_names_connections_and_the_order_of_inputs_and_nothing_else() -> None:
    edges = (("a", "c"), ("b", "c"))
    graph = graph_of("a", "b", "c", edges=edges)
    assert graph.signature() == graph_of("c", "b", "a", edges=edges).signature()
    same_names = graph.with_steps({"a": Node(name="a", input_batch_size=7)})
    assert same_names.signature() == graph.signature()
    assert graph_of("a", "b", "d", edges=(("a", "d"), ("b", "d"))).signature() != graph.signature()
    assert graph_of("a", "b", "c", edges=edges[:1]).signature() != graph.signature()
    assert graph_of("a", "b", "c", edges=edges[::-1]).signature() != graph.signature()


def test_a_source_flows_into_every_step_that_has_no_rows_yet() -> None:
    graph = graph_of("a", "b", "c", edges=(("a", "c"),))
    graph.add(Numbers(name="numbers"))
    made = graph.with_source("dataset", LoadDataFromDicts(data=[{"x": 1}]))
    assert [made.predecessors(name) for name in ("a", "b", "c", "numbers")] == [
        ("dataset",),
        ("dataset",),
        ("a",),
        (),
    ]
    assert graph.predecessors("a") == ()


def test_a_source_that_nobody_needs_or_whose_name_is_taken_is_an_error() -> None:
    source = LoadDataFromDicts(data=[{"x": 1}])
    graph = Graph()
    graph.add(Numbers(name="numbers"))
    with pytest.raises(GraphError, match="every step of the pipeline has its rows already"):
        graph.with_source("dataset", source)
    with pytest.raises(GraphError, match="has a step named 'dataset'"):
        graph_of("dataset").with_source("dataset", source)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 8))
    names = [f"s{n}" for n in range(count)]
    graph = graph_of(*draw(st.permutations(names)))
    for number, name in enumerate(names):
        for source in draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []:
            graph.connect(source, name)
    return graph


@given(graphs())
def test_the_order_holds_every_step_once_and_after_its_predecessors(graph: Graph) -> None:
    order = graph.order()
    assert sorted(order) == sorted(graph.steps)
    for position, name in enumerate(order):
        assert set(graph.predecessors(name)) <= set(order[:position])
        assert graph.ancestors(name) <= set(order[:position])


@given(graphs(), st.data())
def test_a_connection_is_refused_if_and_only_if_it_closes_a_cycle_or_is_there(
    graph: Graph, data: Any
) -> None:
    upstream, downstream = (data.draw(st.sampled_from(sorted(graph.steps))) for _ in range(2))
    is_there = upstream in graph.predecessors(downstream)
    is_cycle = upstream == downstream or downstream in graph.ancestors(upstream)
    if is_there or is_cycle:
        with pytest.raises(GraphError):
            graph.connect(upstream, downstream)
    else:
        graph.connect(upstream, downstream)
        assert graph.predecessors(downstream)[-1] == upstream
