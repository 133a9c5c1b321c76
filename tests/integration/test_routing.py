"""Batches that are routed to some of the steps that follow, and joined again: on each engine, in each run."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_ray.errors import GraphError, StepError
from distill_ray.models import LLM, GenerateOutput
from distill_ray.pipeline import Pipeline, RoutingBatchFunction, routing_batch_function, sample_n_steps
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput, StepResources
from distill_ray.steps.tasks import TextGeneration


class Mark(Step):
    """Says who it is."""

    mark: str = ""
    times: int = 1

    @property
    def outputs(self) -> list[str]:
        return ["by"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "by": row.get("by", "") + self.mark} for row in inputs for _ in range(self.times)]


class MarkRow(Mark):
    row_wise: ClassVar[bool] = True

    @property
    def inputs(self) -> dict[str, bool]:
        return {"by": False}

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            yield [{**row, "by": row.get("by", "") + self.mark}]


class Together(Step):
    """Joins the marks of rows that belong together."""

    sign: str = "+"
    is_strict: bool = True

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [self.joined(rows) for rows in zip(*inputs, strict=True)]

    def joined(self, rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        assert not self.is_strict or len({row["n"] for row in rows}) == 1, "rows that do not belong together"
        return {"n": rows[0].get("n"), "by": self.sign.join(row["by"] for row in rows)}


class TogetherRow(Together):
    row_wise: ClassVar[bool] = True

    @property
    def inputs(self) -> list[str]:
        return ["by"]

    def process(self, *inputs: StepInput) -> StepOutput:
        for rows in zip(*inputs, strict=True):
            yield [{"by": self.sign.join(row["by"] for row in rows)}]


@routing_batch_function(description="One or more of them.")
def some(steps: list[str]) -> list[str]:
    return random.sample(steps, random.randint(1, len(steps)))


@routing_batch_function()
def two(steps: list[str]) -> list[str]:
    return random.sample(steps, 2)


_turns = itertools.count()


@routing_batch_function(description="Two of them, in turn: called once for each batch, whatever runs.")
def in_turn(steps: list[str]) -> list[str]:
    turn = next(_turns) % 3
    return [steps[turn], steps[turn - 1]]


def marks(
    routing: RoutingBatchFunction,
    rows: int = 50,
    *,
    batch: int = 4,
    of_steps: tuple[int, int, int] = (2, 2, 2),
    of_join: int = 2,
    replicas: int = 1,
    kind: type[Mark] = Mark,
    joins: type[Together] = Together,
    **parameters: Any,
) -> Pipeline:
    with Pipeline(name="marks") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(rows)], batch_size=batch)
        resources = StepResources(replicas=replicas)
        steps = [
            kind(
                name=name,
                input_batch_size=size,
                resources=resources,
                **{"mark": name, **parameters.get(name, {})},
            )
            for name, size in zip("abc", of_steps, strict=True)
        ]
        (
            load
            >> routing
            >> steps
            >> joins(name="join", input_batch_size=of_join, resources=resources, **parameters.get("join", {}))
        )
    return pipeline


def found_in(pipeline: Pipeline, engine: Engine = "inline", **options: Any) -> list[tuple[int, str]]:
    rows = pipeline.run(engine=engine, **options)["default"]["train"]
    return [(row["n"], row["by"]) for row in rows]


def wanted_of(pipeline: Pipeline, rows: int, batch: int) -> list[tuple[int, str]]:
    routing = pipeline.plan().routings["load"]
    return [(n, "+".join(sorted(routing.choice(n // batch)))) for n in range(rows)]


def computed(pipeline: Pipeline, **options: Any) -> dict[str, int]:
    report = pipeline.run(engine="inline", **options).report
    return {name: step.rows_computed for name, step in report.steps.items() if step.rows_computed}


def test_each_batch_goes_to_the_chosen_steps_and_they_are_joined(engine: Engine) -> None:
    pipeline = marks(in_turn, 11, joins=Together)
    assert found_in(pipeline, engine) == [
        *((n, "a+c") for n in range(4)),
        *((n, "a+b") for n in range(4, 8)),
        *((n, "b+c") for n in range(8, 11)),
    ]


def test_replicas_and_sizes_of_batches_do_not_show(engine: Engine) -> None:
    sizes: dict[str, Any] = {"batch": 7, "of_steps": (3, 20, 7), "of_join": 5, "replicas": 2}
    pipeline = marks(some, 101, kind=MarkRow, joins=TogetherRow, **sizes)
    assert found_in(pipeline, engine) == wanted_of(pipeline, 101, 7)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(0, 40),
    batch=st.integers(1, 9),
    of_steps=st.tuples(*[st.integers(1, 9)] * 3),
    of_join=st.integers(1, 9),
    routing=st.sampled_from([some, two, sample_n_steps(1), sample_n_steps(2), sample_n_steps(3)]),
    kinds=st.sampled_from([(Mark, Together), (MarkRow, Together), (MarkRow, TogetherRow)]),
    changed=st.sampled_from(["", "b", "join", "abc"]),
)
def test_every_row_goes_where_the_function_says_also_in_later_runs(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    batch: int,
    of_steps: tuple[int, int, int],
    of_join: int,
    routing: RoutingBatchFunction,
    kinds: tuple[type[Mark], type[Together]],
    changed: str,
) -> None:
    kind, join = kinds
    root = tmp_path_factory.mktemp("root")

    def made(**parameters: Any) -> Pipeline:
        function = RoutingBatchFunction(routing.routing_function)  # of another process, as it were
        pipeline = marks(
            function,
            rows,
            batch=batch,
            of_steps=of_steps,
            of_join=of_join,
            kind=kind,
            joins=join,
            **parameters,
        )
        pipeline.cache_dir = str(root)
        return pipeline

    wanted = wanted_of(made(), rows, batch)
    assert found_in(made()) == wanted
    parameters: dict[str, Any] = {"join": {"sign": "-"}} if changed == "join" else {}
    parameters |= {name: {"mark": name.upper()} for name in changed if changed != "join"}
    upper = str.maketrans({name: name.upper() for name in changed} if changed != "join" else {"+": "-"})
    assert found_in(made(**parameters), verify=0.3) == [(n, by.translate(upper)) for n, by in wanted]


def test_a_row_that_is_routed_as_before_is_not_computed_again() -> None:
    first = computed(marks(sample_n_steps(2), kind=MarkRow, joins=TogetherRow))
    assert first["a"] + first["b"] + first["c"] == 2 * 50
    assert computed(marks(sample_n_steps(2), kind=MarkRow, joins=TogetherRow)) == {}
    all_three = computed(marks(sample_n_steps(3), kind=MarkRow, joins=TogetherRow))
    assert {name: first[name] + all_three.get(name, 0) for name in "abc"} == dict.fromkeys("abc", 50)


def test_hits_are_joined_without_reading_what_was_routed(cache_root: Path) -> None:
    pipeline = marks(some)
    wanted = found_in(pipeline)
    load = pipeline.plan()["load"].function
    for path in (cache_root / "steps" / f"{load.class_name}-{load.signature}").rglob("*.*"):
        path.unlink()
    changed = marks(some, join={"sign": "-"})
    assert found_in(changed) == [(n, by.replace("+", "-")) for n, by in wanted]
    assert changed.plan()["load"].decision == "not needed"


class Deadly(Mark):
    """Kills its process at some rows, where the environment says so."""

    def process(self, inputs: StepInput) -> StepOutput:
        if inputs[0]["n"] >= 60 and os.environ.get("DEADLY"):
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().process(inputs)


def test_what_a_kill_leaves_is_routed_as_before() -> None:
    code = "from tests.integration.test_routing import *; marks(two, 100, kind=Deadly).run(engine='inline')"
    environment = {**os.environ, "DEADLY": "1", "DISTILL_RAY_FLUSH_SECONDS": "0.001"}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    again = marks(RoutingBatchFunction(two.routing_function), 100, kind=Deadly)
    left = computed(again)
    assert sum(left.get(name, 0) for name in "abc") < 2 * 100
    assert found_in(again) == wanted_of(again, 100, 4)


def test_a_function_that_chooses_otherwise_each_time_is_found_out() -> None:
    @routing_batch_function()
    def by_chance(steps: list[str]) -> list[str]:
        return [steps[random.SystemRandom().randrange(len(steps))]]

    again = RoutingBatchFunction(by_chance.routing_function)
    marks(by_chance, 400).run(engine="inline")
    with pytest.raises(StepError, match=r"'load'.*routed otherwise now than in the run.*use_cache=False"):
        marks(again, 400, b={"mark": "B"}).run(engine="inline")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda steps: [], r"must return one or more of the steps that it is given \('a', 'b', 'c'\)"),
        (lambda steps: ["d"], r"batch 0 it returned \['d'\]"),
        (lambda steps: "a", r"as a list, but for batch 0 it returned 'a'"),
        (lambda steps: None, r"it returned None"),
        (lambda steps: ["a", "a"], r"each once"),
        (lambda steps: steps[7:8][0], r"could not be routed: IndexError: list index out of range"),
    ],
)
def test_what_is_no_choice_ends_the_run(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(StepError, match=f"'load'.*{message}"):
        marks(routing_batch_function()(function)).run(engine="inline")


def test_a_step_that_changes_the_number_of_rows_is_named_with_the_step_that_joins() -> None:
    with pytest.raises(StepError, match=r"'join'.*batches of 'load'.*'b' gave \d+ rows for the \d+ that"):
        marks(two, b={"times": 2}, join={"is_strict": False}).run(engine="inline")


def test_without_a_join_each_step_is_a_leaf_with_the_rows_routed_to_it() -> None:
    with Pipeline(name="leaves") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(20)], batch_size=5)
        load >> sample_n_steps(1) >> [Mark(name="a", mark="a"), Mark(name="b", mark="b")]
        load >> Mark(name="all")
    leaves = pipeline.run(engine="inline")
    a, b, every = ([row["n"] for row in leaves[name]["train"]] for name in ("a", "b", "all"))
    assert sorted(a + b) == every == list(range(20))
    assert a == sorted(a)
    assert b == sorted(b)


def test_routing_in_a_branch_of_a_routing_and_steps_on_the_way() -> None:
    with Pipeline(name="levels") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(60)], batch_size=6)
        first, second, other = (Mark(name=name, mark=name, input_batch_size=6) for name in "fso")
        load >> two >> [first, second, other]
        inner = Together(name="inner", sign="&")
        first >> sample_n_steps(1) >> [Mark(name="x", mark="x"), Mark(name="y", mark="y")] >> inner
        [inner, second >> Mark(name="t", mark="t"), other] >> Together(name="outer")
    rows = [(row["n"], row["by"]) for row in pipeline.run(engine="inline")["default"]["train"]]
    assert [n for n, _ in rows] == list(range(60))
    assert {by for _, by in rows} == {"fx+st", "fy+st", "fx+o", "fy+o", "st+o"}


def test_a_join_of_some_of_the_steps_is_given_the_batches_that_they_had() -> None:
    with Pipeline(name="some") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(60)], batch_size=6)
        steps = [Mark(name=name, mark=name) for name in "abc"]
        load >> sample_n_steps(1) >> steps
        steps[:2] >> Together(name="join")
    leaves = pipeline.run(engine="inline")
    joined = {row["n"]: row["by"] for row in leaves["join"]["train"]}
    others = [row["n"] for row in leaves["c"]["train"]]
    assert set(joined.values()) == {"a", "b"}
    assert sorted([*joined, *others]) == list(range(60))


class Echo(LLM):
    version = "1"
    name: str = ""

    @property
    def model_name(self) -> str:
        return self.name

    def generate(self, inputs: list[Any], num_generations: int = 1, **_: Any) -> list[GenerateOutput]:
        return [
            {
                "generations": [f"{self.name}: {chat[-1]['content']}"] * num_generations,
                "statistics": {"input_tokens": [1], "output_tokens": [1]},
            }
            for chat in inputs
        ]


class Answers(Step):
    def process(self, *inputs: StepInput) -> StepOutput:
        yield [
            {"instruction": rows[0]["instruction"], "answers": [row["generation"] for row in rows]}
            for rows in zip(*inputs, strict=True)
        ]


def asked(**given: Any) -> Pipeline:
    with Pipeline(name="asked") as pipeline:
        load = LoadDataFromDicts(
            name="load", data=[{"instruction": f"what is {n}"} for n in range(30)], batch_size=5
        )
        tasks = [TextGeneration(name=name, llm=Echo(name=name), input_batch_size=4) for name in "xyz"]
        load >> sample_n_steps(2) >> tasks >> Answers(name="answers", **given)
    return pipeline


def test_tasks_are_routed_to_as_steps_are(engine: Engine) -> None:
    pipeline = asked()
    chosen = pipeline.plan().routings["load"]
    rows = list(pipeline.run(engine=engine)["default"]["train"])
    assert [row["answers"] for row in rows] == [
        [f"{name}: what is {n}" for name in sorted(chosen.choice(n // 5))] for n in range(30)
    ]
    steps = [step for step in asked().plan().steps if step.decision != "not needed"]
    assert [(step.name, step.decision) for step in steps] == [("answers", "hit")]


def test_a_dry_run_routes_its_one_batch() -> None:
    assert len(asked().dry_run(engine="inline")["default"]["train"]) == 1


def test_the_rows_given_to_a_run_may_be_routed_further_down() -> None:
    with Pipeline(name="given") as pipeline:
        first = Mark(name="first", mark="f", input_batch_size=3)
        first >> sample_n_steps(1) >> [Mark(name="a", mark="a"), Mark(name="b", mark="b")] >> Together()
    given = [{"n": n} for n in range(20)]
    rows = pipeline.run(dataset=given, engine="inline")["default"]["train"]
    assert [row["n"] for row in rows] == list(range(20))
    assert {row["by"] for row in rows} == {"fa", "fb"}


def test_a_saved_pipeline_routes_as_before(tmp_path: Path) -> None:
    for routing in (two, sample_n_steps(2)):
        made = marks(routing)
        made.save(tmp_path / "marks.yaml")
        read = Pipeline.from_yaml(tmp_path / "marks.yaml")
        assert read.dump() == made.dump()
        assert read.plan()["join"].output_key == made.plan()["join"].output_key
    (tmp_path / "marks.yaml").write_text((tmp_path / "marks.yaml").read_text().replace("SampleSteps", "Gone"))
    with pytest.raises(GraphError, match=r"routing after step 'load': cannot import `Gone`"):
        Pipeline.from_yaml(tmp_path / "marks.yaml")


def test_the_plan_says_that_the_routing_changed() -> None:
    marks(two).run(engine="inline")
    plan = marks(sample_n_steps(2)).plan()
    assert plan["a"].reason.startswith("CONFIG: routing changed: 'load' to 'a', 'b', 'c' by two (")
    assert "-> 'load' to 'a', 'b', 'c' by sample_n_steps(2) (" in plan["a"].reason
    assert "UPSTREAM: 'a' (config)" in plan["join"].reason
    assert plan["load"].decision == "hit"
    assert (
        marks(two, batch=8)
        .plan()["a"]
        .reason.endswith("in batches of 8; rows that come out as before are reused")
    )


def test_equal_routings_of_different_steps_draw_differently() -> None:
    with Pipeline(name="apart") as pipeline:
        for place in ("one", "other"):
            load = LoadDataFromDicts(name=place, data=[{"n": n} for n in range(10)], batch_size=1)
            load >> sample_n_steps(1) >> [Mark(name=f"{place}_a"), Mark(name=f"{place}_b")]
    one, other = pipeline.plan().routings.values()
    sides = [[min(each.choice(n))[-1] for n in range(64)] for each in (one, other)]
    assert sides[0] != sides[1]
    assert {"a", "b"} == set(sides[0]) == set(sides[1])
