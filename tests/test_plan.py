from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.manifest import Manifest, PartEntry, Segment
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.records import FunctionRecord, LastRuns, RunRecord
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.graph import Graph
from distill_ray.plan import Plan, StepPlan, aggregated_signature, is_outdated, make_plan, sign
from distill_ray.steps import GeneratorStep, Step, StepInput
from distill_ray.storage import open_storage
from distill_ray.types import GeneratorStepOutput, StepOutput


class Source(GeneratorStep):
    version = "1"

    tag: int = 0

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        yield [{"n": offset}], True


class Node(Step):
    version = "1"

    tag: int = 0

    def process(self, *inputs: StepInput) -> StepOutput:
        yield inputs[0]


@dataclass
class MemoryCatalog:
    """A cache in memory that remembers what it was asked."""

    outputs: dict[tuple[FunctionId, str], Manifest] = field(default_factory=dict)
    distrusted: dict[str, str] = field(default_factory=dict)
    parts: dict[FunctionId, tuple[tuple[PartEntry, UnitIndex], ...]] = field(default_factory=dict)
    runs: LastRuns = field(default_factory=LastRuns)
    aliases: dict[str, str] = field(default_factory=dict)
    lacking: set[tuple[str, str]] = field(default_factory=set)
    made_from: dict[FunctionId, FunctionRecord] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    listed: list[FunctionId] = field(default_factory=list)
    by_unit: bool = False

    def manifest(self, function: FunctionId, output_key: str, *, leaf: bool) -> tuple[Manifest | None, str]:
        self.asked.append(output_key)
        if output_key in self.distrusted:
            return None, self.distrusted[output_key]
        return self.outputs.get((function, output_key)), ""

    def indexes(self, function: FunctionId) -> Sequence[tuple[PartEntry, UnitIndex]]:
        self.listed.append(function)
        return self.parts.get(function, ())

    def canonical(self, signature: str) -> str:
        return self.aliases.get(signature, signature)

    def last_runs(self, pipeline: str) -> LastRuns:
        return self.runs

    def function_record(self, function: FunctionId) -> FunctionRecord | None:
        return self.made_from.get(function)

    def lacks_rows(self, run: str, output_key: str) -> bool:
        return (run, output_key) in self.lacking

    def remember(self, plan: Plan, *, finished: bool = True) -> None:
        """Keep what a run of this plan leaves beside its rows."""
        run = RunRecord(plan.pipeline, "run-1", plan.records)
        self.runs = LastRuns(run, run if finished else None)
        for step in plan.steps:
            signed = plan.functions[step.name]
            self.made_from[step.function] = FunctionRecord(signed.preimage, signed.code)

    def store(self, plan: Plan, name: str, content: str = "", rows: int = 10) -> None:
        """Put a step's complete output in, made from what is stored of the steps above it."""
        step = plan[name]
        lineage = {step.output_key: content or name}
        for source in plan.graph.predecessors(name):
            above = self.outputs.get((plan[source].function, plan[source].output_key))
            lineage.update(above.lineage if above else {plan[source].output_key: source})
        part = PartEntry(f"part-{name}", 100)
        self.outputs[step.function, step.output_key] = Manifest(
            step.function, step.output_key, rows, content or name, (part,), (Segment(0, 0, rows),), lineage
        )
        self.store_parts(step, rows)

    def store_parts(self, step: StepPlan, rows: int = 10) -> None:
        """Put a part in, as a run leaves that stops before its end."""
        index = UnitIndex(bytes(16), (rows,), bytes(16 * rows), "run", (), 0.0, 0, 0)
        self.parts[step.function] = ((PartEntry(f"part-{step.name}", 100), index),)


def graph_of(edges: dict[str, list[str]], **steps: Step | GeneratorStep) -> Graph:
    """Steps by name with their predecessors; each has a signature of its own."""
    graph = Graph()
    for tag, (name, sources) in enumerate(edges.items()):
        made: Any = Node(name=name, tag=tag) if sources else Source(name=name, tag=tag)
        graph.add(steps.get(name, made))
        for source in sources:
            graph.connect(source, name)
    return graph


CHAIN: dict[str, list[str]] = {"load": [], "ask": ["load"], "judge": ["ask"]}
DIAMOND: dict[str, list[str]] = {"load": [], "left": ["load"], "right": ["load"], "join": ["left", "right"]}
FORK: dict[str, list[str]] = {"load": [], "left": ["load"], "right": ["load"]}


def decisions(plan: Plan) -> dict[str, str]:
    return {step.name: step.decision for step in plan.steps}


def plan_of(graph: Graph, catalog: MemoryCatalog, *, use_cache: bool = True) -> Plan:
    return make_plan("test", graph, catalog, use_cache=use_cache)


def filled(edges: dict[str, list[str]], *names: str) -> tuple[Graph, MemoryCatalog]:
    """A graph, and a catalog that holds the outputs of these steps (all where none is named)."""
    graph, catalog = graph_of(edges), MemoryCatalog()
    plan = plan_of(graph, catalog)
    for name in names or edges:
        catalog.store(plan, name)
    catalog.asked.clear()
    catalog.listed.clear()
    return graph, catalog


def test_nothing_stored_means_that_everything_is_computed() -> None:
    plan = plan_of(graph_of(CHAIN), MemoryCatalog())
    assert decisions(plan) == dict.fromkeys(CHAIN, "compute")
    assert plan["ask"].reason == "first run in this pipeline: nothing is stored of it"
    assert not plan.complete


def test_a_leaf_that_hits_never_asks_about_its_ancestors() -> None:
    graph, catalog = filled(CHAIN)
    plan = plan_of(graph, catalog)
    assert decisions(plan) == {"load": "not needed", "ask": "not needed", "judge": "hit"}
    assert plan["load"].reason == "all that follows it is known"
    assert catalog.asked == [plan["judge"].output_key]
    assert catalog.listed == []
    assert plan.complete


def test_a_partial_hit_asks_each_step_once_and_lists_only_what_is_missing() -> None:
    graph, catalog = filled(CHAIN, "ask")
    plan = plan_of(graph, catalog)
    assert decisions(plan) == {"load": "not needed", "ask": "hit", "judge": "compute"}
    assert catalog.asked == [plan["judge"].output_key, plan["ask"].output_key]
    assert catalog.listed == [plan["judge"].function]


def test_parts_without_a_complete_output_are_resumed() -> None:
    graph, catalog = filled(CHAIN, "load")
    catalog.store_parts(plan_of(graph, catalog)["ask"], rows=7)
    catalog.remember(plan_of(graph, catalog), finished=False)
    plan = plan_of(graph, catalog)
    assert decisions(plan) == {"load": "hit", "ask": "resume", "judge": "compute"}
    assert plan["ask"].rows_known == 7
    assert plan["ask"].reason == (
        "run run-1, which had it, did not finish it; rows that come out as before are reused"
    )
    assert [reason.kind for reason in plan["ask"].reasons] == ["unfinished"]
    assert not plan["ask"].replace_manifest


def test_a_changed_step_in_the_middle_is_named_by_the_steps_below_it() -> None:
    graph, catalog = filled(CHAIN)
    catalog.remember(plan_of(graph, catalog))
    plan = plan_of(graph_of(CHAIN, ask=Node(name="ask", tag=99)), catalog)
    assert decisions(plan) == {"load": "hit", "ask": "compute", "judge": "resume"}
    assert plan["ask"].reason == "CONFIG: tag: 1 -> 99"
    assert plan["judge"].reason == "UPSTREAM: 'ask' (config); rows that come out as before are reused"


def test_a_function_with_an_alias_and_all_below_it_find_what_the_older_one_computed() -> None:
    graph, catalog = filled(CHAIN)
    old, refactored = plan_of(graph, catalog), graph_of(CHAIN, ask=Node(name="ask", tag=99))
    catalog.aliases[sign(refactored)["ask"].signature] = old["ask"].function.signature
    plan = plan_of(refactored, catalog)
    assert decisions(plan)["judge"] == "hit"
    assert plan["ask"].function == old["ask"].function
    assert plan["judge"].output_key == old["judge"].output_key
    assert plan.aggregated != old.aggregated


def test_rows_to_compute_are_those_that_flow_in_where_they_are_known() -> None:
    graph, catalog = filled(CHAIN, "load")
    plan = plan_of(graph, catalog)
    assert plan["load"].rows_to_compute == 0
    assert plan["ask"].rows_to_compute == 10
    assert plan["judge"].rows_to_compute is None


def test_use_cache_false_on_a_step_computes_it_and_all_below_it_anew() -> None:
    _, catalog = filled(DIAMOND)
    graph = graph_of(DIAMOND, left=Node(name="left", tag=1, use_cache=False))
    plan = plan_of(graph, catalog)
    assert decisions(plan) == {"load": "hit", "left": "forced", "right": "hit", "join": "forced"}
    assert plan["left"].reason == "use_cache=False on this step"
    assert plan["join"].reason == "'left' above it is computed anew"
    assert plan["join"].replace_manifest
    assert plan["join"].output_key not in catalog.asked


def test_use_cache_false_on_the_run_asks_nothing() -> None:
    graph, catalog = filled(CHAIN)
    plan = plan_of(graph, catalog, use_cache=False)
    assert decisions(plan) == dict.fromkeys(CHAIN, "forced")
    assert {step.reason for step in plan.steps} == {"run(use_cache=False)"}
    assert catalog.asked == []
    assert catalog.listed == []


def test_two_hits_that_rest_on_other_rows_of_a_shared_step_are_not_joined() -> None:
    graph, catalog = filled(FORK, "load", "left")
    plan = plan_of(graph, catalog)
    load = dict(catalog.outputs)
    catalog.store(plan, "load", content="another sampling")
    catalog.store(plan, "right")
    catalog.outputs.update(load)
    plan = plan_of(graph, catalog)
    assert decisions(plan) == {"load": "hit", "left": "hit", "right": "resume"}
    assert plan["right"].reason.startswith("it was made from other rows of a step above it")
    assert plan["right"].replace_manifest


def test_a_hit_below_a_step_that_has_to_run_is_no_hit() -> None:
    graph, catalog = filled(FORK, "left")
    plan = plan_of(graph, catalog)
    assert decisions(plan) == {"load": "compute", "left": "resume", "right": "compute"}
    assert plan["left"].reason == "'load' above it has to run"
    assert plan["left"].replace_manifest


def test_a_manifest_that_cannot_be_believed_is_computed_again_and_replaced() -> None:
    graph, catalog = filled(CHAIN)
    key = plan_of(graph, catalog)["judge"].output_key
    catalog.distrusted[key] = "2 of its 3 parts are gone or cut: a"
    plan = plan_of(graph, catalog)
    assert decisions(plan) == {"load": "not needed", "ask": "hit", "judge": "resume"}
    assert plan["judge"].reason == "2 of its 3 parts are gone or cut: a"
    assert plan["judge"].replace_manifest


def test_a_plan_is_outdated_once_an_output_is_there_that_was_missing() -> None:
    catalog = MemoryCatalog()
    plan = plan_of(graph_of(CHAIN), catalog)
    assert not is_outdated(plan, catalog)
    catalog.asked.clear()
    catalog.store(plan, "load")
    assert is_outdated(plan, catalog)
    assert sorted(catalog.asked) == sorted(step.output_key for step in plan.steps)
    newer = plan_of(graph_of(CHAIN), catalog)
    catalog.asked.clear()
    assert not is_outdated(newer, catalog)
    assert newer["load"].output_key not in catalog.asked, "it is a hit already"


def test_steps_of_one_layer_are_asked_about_at_the_same_time() -> None:
    edges: dict[str, list[str]] = {"load": [], **{f"leaf{n}": ["load"] for n in range(4)}}
    barrier = threading.Barrier(4, timeout=10)

    class Slow(MemoryCatalog):
        def manifest(
            self, function: FunctionId, output_key: str, *, leaf: bool
        ) -> tuple[Manifest | None, str]:
            if function.class_name == "Node":
                barrier.wait()
            return super().manifest(function, output_key, leaf=leaf)

    assert not plan_of(graph_of(edges), Slow()).complete


def test_an_unknown_step_is_answered_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="no step 'asks' in the plan: load, ask, judge"):
        _ = plan_of(graph_of(CHAIN), MemoryCatalog())["asks"]


def test_the_same_step_after_another_one_has_another_output_but_the_same_function() -> None:
    one = plan_of(graph_of({"a": [], "x": ["a"]}, x=Node(name="x", tag=9)), MemoryCatalog())
    other = plan_of(graph_of({"b": [], "y": [], "x": ["y"]}, x=Node(name="x", tag=9)), MemoryCatalog())
    assert one["x"].function == other["x"].function
    assert one["x"].output_key != other["x"].output_key


def test_the_order_of_several_predecessors_counts() -> None:
    swapped = {**DIAMOND, "join": ["right", "left"]}
    plans = [plan_of(graph_of(edges), MemoryCatalog()) for edges in (DIAMOND, swapped)]
    assert plans[0]["join"].output_key != plans[1]["join"].output_key
    assert plans[0].signature != plans[1].signature
    assert plans[0].aggregated == plans[1].aggregated


def test_the_aggregated_signature_counts_steps_and_no_order() -> None:
    functions = sign(graph_of(CHAIN))
    assert aggregated_signature(functions) == aggregated_signature(dict(reversed(functions.items())))
    assert aggregated_signature(functions) != aggregated_signature({"ask": functions["ask"]})


def test_a_store_whose_parts_are_gone_does_not_hit(tmp_path: Any) -> None:
    from distill_ray.cache.catalog import StoreCatalog

    graph, memory = filled(CHAIN, "judge")
    store = CacheStore(open_storage(str(tmp_path)))
    (manifest,) = memory.outputs.values()
    store.write_manifest(manifest, replace=False)
    plan = make_plan("test", graph, StoreCatalog(store))
    assert plan["judge"].decision == "compute"
    assert plan["judge"].reason == "1 of its 1 parts are gone or cut: part-judge"
    assert plan["judge"].replace_manifest


# Rules that hold for every pipeline and every cache


@dataclass(frozen=True)
class Case:
    """A random DAG, what is stored of it, and which of its steps are not to use the cache."""

    graph: Graph
    catalog: MemoryCatalog
    stored: frozenset[str]
    uncached: frozenset[str]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 7))
    names = [f"s{n}" for n in range(count)]
    edges: dict[str, list[str]] = {}
    for number, name in enumerate(names):
        edges[name] = draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []
    graph = graph_of(edges)
    catalog = MemoryCatalog()
    plan = plan_of(graph, catalog)
    stored = frozenset(draw(st.lists(st.sampled_from(names), unique=True)))
    for name in names:
        content = draw(st.sampled_from(["", "other rows"]))
        if name in stored:
            catalog.store(plan, name, content=content and f"{name}: {content}")
        elif draw(st.booleans()):
            catalog.store_parts(plan[name])
    uncached = frozenset(draw(st.lists(st.sampled_from(names), unique=True, max_size=1)))
    if uncached:
        graph = graph.with_steps(
            {name: graph.steps[name].model_copy(update={"use_cache": False}) for name in uncached}
        )
    catalog.asked.clear()
    return Case(graph, catalog, stored, uncached)


def running(plan: Plan) -> Iterator[StepPlan]:
    return (step for step in plan.steps if step.runs)


@given(cases())
def test_whatever_runs_has_its_input(case: Case) -> None:
    plan = plan_of(case.graph, case.catalog)
    for step in running(plan):
        for source in case.graph.predecessors(step.name):
            assert plan[source].runs or plan[source].decision == "hit"
    for leaf in case.graph.leaves():
        assert plan[leaf].runs or plan[leaf].decision == "hit"


@given(cases())
def test_what_is_forced_is_forced_downwards_and_nothing_else(case: Case) -> None:
    plan = plan_of(case.graph, case.catalog)
    forced = {step.name for step in plan.steps if step.decision == "forced"}
    expected = {name for name in case.graph.steps if ({name} | case.graph.ancestors(name)) & case.uncached}
    assert forced == expected


@given(cases())
def test_only_what_is_stored_hits_and_never_below_what_runs(case: Case) -> None:
    plan = plan_of(case.graph, case.catalog)
    for step in plan.steps:
        if step.decision == "hit":
            assert step.name in case.stored
            assert not any(plan[above].runs for above in case.graph.ancestors(step.name))


@given(cases())
def test_the_hits_of_one_plan_agree_on_the_rows_of_every_step(case: Case) -> None:
    agreed: dict[str, str] = {}
    for step in plan_of(case.graph, case.catalog).steps:
        if step.manifest is not None:
            for key, content in step.manifest.lineage.items():
                assert agreed.setdefault(key, content) == content


@given(cases())
def test_no_step_is_asked_about_twice(case: Case) -> None:
    plan_of(case.graph, case.catalog)
    assert len(case.catalog.asked) == len(set(case.catalog.asked))


@given(cases())
def test_where_all_leaves_are_stored_and_agree_nothing_runs_and_nothing_else_is_asked(case: Case) -> None:
    graph = case.graph.with_steps(
        {name: step.model_copy(update={"use_cache": True}) for name, step in case.graph.steps.items()}
    )
    catalog = MemoryCatalog()
    plan = plan_of(graph, catalog)
    for name in graph.order():
        catalog.store(plan, name)
    catalog.asked.clear()
    plan = plan_of(graph, catalog)
    assert plan.complete
    leaves = set(graph.leaves())
    assert {step.name for step in plan.steps if step.decision == "hit"} == leaves
    assert set(catalog.asked) == {plan[leaf].output_key for leaf in leaves}


@given(cases())
def test_after_a_run_that_stored_what_it_computed_nothing_runs(case: Case) -> None:
    graph = case.graph
    plan = plan_of(graph, case.catalog)
    for step in running(plan):
        case.catalog.store(plan, step.name, content=f"{step.name}: computed")
    cached = graph.with_steps(
        {name: step.model_copy(update={"use_cache": True}) for name, step in graph.steps.items()}
    )
    assert plan_of(cached, case.catalog).complete


def test_a_plan_is_a_value() -> None:
    graph, catalog = filled(CHAIN)
    assert [replace(step) for step in plan_of(graph, catalog).steps] == list(plan_of(graph, catalog).steps)
