from __future__ import annotations

from typing import Any

import pytest

from distill_ray.errors import GraphError
from distill_ray.graph import Graph, check
from distill_ray.graph.expand import expand
from distill_ray.models import LLM, ChatType, GenerateOutput
from distill_ray.pipeline import Pipeline
from distill_ray.steps import KeepColumns, LoadDataFromDicts, StepInput, StepOutput
from distill_ray.steps.tasks import TextGeneration
from distill_ray.steps.tasks.parts import RequestRows


class Silent(LLM):
    @property
    def model_name(self) -> str:
        return "silent"

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1, seed: int | None = None
    ) -> list[GenerateOutput]:
        return [{"generations": [None] * num_generations} for _ in inputs]


class Own(TextGeneration):
    def process(self, inputs: StepInput) -> StepOutput:
        yield from super().process(inputs)


def loader() -> LoadDataFromDicts:
    return LoadDataFromDicts(name="load", data=[{"instruction": "a"}])


def task(
    name: str, kind: type[TextGeneration] = TextGeneration, seed: int | None = None, **fields: Any
) -> Any:
    kwargs = {} if seed is None else {"seed": seed}
    return kind(name=name, llm=Silent(generation_kwargs=kwargs), **fields)


def expanded(graph: Graph) -> Graph:
    """The graph of what runs; tasks of one class and number of generations stand for equal ones here."""
    return expand(graph, {name: type(step).__name__ for name, step in graph.steps.items()})


def wiring(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {name: graph.predecessors(name) for name in graph.steps}


def first_samples(graph: Graph) -> list[int]:
    return [step.first_sample for step in graph.steps.values() if isinstance(step, RequestRows)]


def test_three_steps_take_the_place_of_a_task() -> None:
    with Pipeline() as pipeline:
        loader() >> task("t") >> KeepColumns(name="keep", columns=["generation"])
    graph = expanded(pipeline.graph)
    assert wiring(graph) == {
        "load": (),
        "t/request": ("load",),
        "t/answer": ("t/request",),
        "t": ("load", "t/request", "t/answer"),
        "keep": ("t",),
    }
    assert graph.steps["load"] is pipeline.graph.steps["load"]
    check(graph)


def test_the_users_graph_and_its_leaves_stay() -> None:
    with Pipeline() as pipeline:
        loader() >> [task("one"), task("two")]
    signature = pipeline.graph.signature()
    assert expanded(pipeline.graph).leaves() == pipeline.graph.leaves() == ("one", "two")
    assert pipeline.graph.signature() == signature
    assert list(pipeline.graph.steps) == ["load", "one", "two"]


@pytest.mark.parametrize(
    ("kind", "fields"), [(Own, {}), (TextGeneration, {"exclude_from_signature": frozenset({"llm"})})]
)
def test_a_task_that_asks_itself_or_does_not_sign_its_model_stays_one_step(kind: Any, fields: Any) -> None:
    with Pipeline() as pipeline:
        loader() >> task("t", kind, **fields)
    assert wiring(expanded(pipeline.graph)) == {"load": (), "t": ("load",)}


def test_equal_tasks_on_the_same_rows_ask_for_samples_of_their_own() -> None:
    with Pipeline() as pipeline:
        load = loader()
        load >> [task(name, num_generations=2) for name in "abc"]
        load >> KeepColumns(name="keep", columns=["instruction"]) >> task("d")
    assert first_samples(expanded(pipeline.graph)) == [0, 2, 4, 0]


def test_equal_tasks_with_a_seed_are_given_the_same_answers() -> None:
    with Pipeline() as pipeline:
        loader() >> [task("a", seed=3), task("b", seed=3)]
    assert first_samples(expanded(pipeline.graph)) == [0, 0]


def test_expanding_inside_a_pipelines_block_adds_no_steps_to_it() -> None:
    with Pipeline() as pipeline:
        loader() >> task("t")
        expanded(pipeline.graph)
    assert list(pipeline.graph.steps) == ["load", "t"]


def test_a_name_that_a_part_needs_is_refused() -> None:
    with Pipeline() as pipeline:
        loader() >> task("t") >> KeepColumns(name="t/answer", columns=["generation"])
    with pytest.raises(GraphError, match="Rename step 't/answer': a part of task 't' has that name"):
        expanded(pipeline.graph)


def test_a_task_takes_rows_of_one_step() -> None:
    with Pipeline() as pipeline:
        loader() >> (t := task("t"))
        LoadDataFromDicts(name="more", data=[{"instruction": "b"}]) >> t
    with pytest.raises(GraphError, match=r"Step 't' follows 2 steps .*, but its `process` takes 1 input"):
        check(pipeline.graph)
