"""Pipelines of unusual shapes: no rows at all, empty batches, long chains, wide forks, one call for all."""

from __future__ import annotations

import time
from typing import ClassVar

import pytest

from distill_ray.distiset import Distiset
from distill_ray.errors import StepError
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import (
    GeneratorStep,
    GlobalStep,
    LoadDataFromDicts,
    Step,
    StepInput,
    StepResources,
)
from distill_ray.typing import GeneratorStepOutput, StepOutput

SMALL = StepResources(cpus=0.1)


class Numbers(GeneratorStep):
    """Counts, with lists without rows before, between and after those with rows where it is told so."""

    outputs: ClassVar[list[str]] = ["n"]
    count: int = 100
    pauses: bool = False

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, self.count, self.batch_size):
            if self.pauses:
                yield [], False
            yield [{"n": n} for n in range(start, min(self.count, start + self.batch_size))], False
        if self.pauses:
            yield [], True


class Add(Step):
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["n"]
    number: int = 1

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "n": row["n"] + self.number} for row in inputs]


class AddEach(Add):
    row_wise: ClassVar[bool] = True


class Repeat(Step):
    """Gives each row as many times as its number says, modulo a few: none for some batches."""

    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["n"]
    modulo: int = 3

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            yield [dict(row) for _ in range(row["n"] // 10 % self.modulo)]


class Drop(Step):
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["n"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield []


class Merge(Step):
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["n"]

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [{"n": sum(row["n"] for row in rows)} for rows in zip(*inputs, strict=True)]


class Count(GlobalStep):
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["rows", "sum"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{"rows": len(inputs), "sum": sum(row["n"] for row in inputs)}]


def numbers_of(distiset: Distiset, leaf: str = "default") -> list[int]:
    return [row["n"] for row in distiset[leaf]["train"]]


def test_no_rows_at_all_flow_through_every_kind_of_step(engine: Engine) -> None:
    def declare() -> Pipeline:
        with Pipeline(name="nothing") as pipeline:
            numbers = Numbers(name="numbers", count=0, resources=SMALL)
            each, counted = AddEach(name="each", resources=SMALL), Count(name="count", resources=SMALL)
            joined = Merge(name="joined", resources=SMALL)
            numbers >> Add(name="add", resources=SMALL) >> [each, counted]
            [numbers, each] >> joined
        return pipeline

    distiset = declare().run(engine=engine)
    assert numbers_of(distiset, "joined") == []
    counted = list(distiset["count"]["train"])
    assert counted in ([], [{"rows": 0, "sum": 0}])
    again = declare().run(engine=engine)
    assert again.report.rows_computed == 0
    assert {step.decision for step in again.report.steps.values()} <= {"hit", "not needed"}
    assert list(again["count"]["train"]) == counted


def test_a_data_set_without_rows_gives_none(engine: Engine) -> None:
    for run in range(2):
        with Pipeline(name="nothing") as pipeline:
            Add(name="add", resources=SMALL) >> AddEach(name="each", resources=SMALL)
        distiset = pipeline.run(dataset=[], engine=engine)
        assert numbers_of(distiset) == []
        assert (distiset.report.steps["each"].decision == "hit") == bool(run)
    with Pipeline(name="nothing") as pipeline:
        LoadDataFromDicts(name="load", data=[], resources=SMALL) >> Add(name="add", resources=SMALL)
    assert numbers_of(pipeline.run(engine=engine)) == []


def test_a_step_that_drops_all_rows_leaves_none_for_those_below(engine: Engine) -> None:
    def declare(number: int) -> Pipeline:
        with Pipeline(name="dropped") as pipeline:
            drop = Drop(name="drop", resources=SMALL)
            Numbers(name="numbers", resources=SMALL) >> drop
            drop >> AddEach(name="each", resources=SMALL) >> Add(name="last", number=number, resources=SMALL)
        return pipeline

    assert numbers_of(declare(1).run(engine=engine)) == []
    again = declare(2).run(engine=engine)
    assert numbers_of(again) == []
    assert again.report.rows_computed == 0
    assert again.report.steps["drop"].decision in ("hit", "not needed")


def test_lists_without_rows_in_the_middle_change_nothing(engine: Engine) -> None:
    def declare(count: int) -> Pipeline:
        with Pipeline(name="pauses") as pipeline:
            numbers = Numbers(name="numbers", count=count, pauses=True, batch_size=10, resources=SMALL)
            (
                numbers
                >> Repeat(name="repeat", input_batch_size=7, resources=SMALL)
                >> Add(name="add", input_batch_size=3, resources=SMALL)
            )
        return pipeline

    expected = [n + 1 for n in range(100) for _ in range(n // 10 % 3)]
    assert numbers_of(declare(100).run(engine=engine)) == expected
    again = declare(100).run(engine=engine)
    assert again.report.rows_computed == 0
    assert numbers_of(again) == expected


def test_rows_that_became_more_or_fewer_before_the_branches_parted_are_joined(engine: Engine) -> None:
    with Pipeline(name="before") as pipeline:
        repeat = Repeat(name="repeat", input_batch_size=7, resources=SMALL)
        Numbers(name="numbers", resources=SMALL) >> repeat
        (
            repeat
            >> [
                Add(name="left", input_batch_size=5, resources=SMALL),
                AddEach(name="right", input_batch_size=11, number=2, resources=SMALL),
            ]
            >> Merge(name="merge", input_batch_size=4, resources=SMALL)
        )
    expected = [2 * n + 3 for n in range(100) for _ in range(n // 10 % 3)]
    assert numbers_of(pipeline.run(engine=engine)) == expected


def test_rows_that_became_more_or_fewer_on_one_branch_are_an_error_that_says_what_to_do() -> None:
    with Pipeline(name="after") as pipeline:
        branches = [Repeat(name="fewer", input_batch_size=7), Add(name="same")]
        Numbers(name="numbers") >> branches >> Merge(name="join")
    with pytest.raises(StepError, match="'same' gave 100 rows and 'fewer' gave 90") as error:
        pipeline.run(engine="inline")
    assert "come after the join, or before the branches part" in str(error.value)


def chain(steps: int, rows: int, last: int = 1) -> Pipeline:
    with Pipeline(name="chain") as pipeline:
        step: GeneratorStep | Step = Numbers(name="numbers", count=rows, resources=SMALL)
        for number in range(steps):
            added = 1 if number < steps - 1 else last
            following = Add(name=f"add_{number}", number=added, resources=SMALL)
            step >> following
            step = following
    return pipeline


def fork(width: int, rows: int) -> Pipeline:
    with Pipeline(name="fork") as pipeline:
        branches = [
            Add(name=f"branch_{n}", number=n, input_batch_size=10 + n, resources=SMALL) for n in range(width)
        ]
        (
            Numbers(name="numbers", count=rows, resources=SMALL)
            >> branches
            >> Merge(name="merge", resources=SMALL)
        )
    return pipeline


def test_a_chain_of_200_steps_runs_and_goes_on_from_its_last_step() -> None:
    assert numbers_of(chain(200, rows=100).run(engine="inline")) == list(range(200, 300))
    changed = chain(200, rows=100, last=1001).run(engine="inline")
    assert numbers_of(changed) == list(range(1200, 1300))
    assert changed.report.rows_computed == 100


def test_50_branches_are_joined_again() -> None:
    distiset = fork(50, rows=500).run(engine="inline")
    assert numbers_of(distiset) == [50 * n + sum(range(50)) for n in range(500)]
    assert fork(50, rows=500).run(engine="inline").report.rows_computed == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_chains_and_forks_of_actors(local_ray: None) -> None:
    """A process takes 100 MB: 30 steps at once are what a small machine holds."""
    assert numbers_of(chain(30, rows=5_000).run(engine="ray")) == list(range(30, 5_030))
    distiset = fork(20, rows=5_000).run(engine="ray")
    assert numbers_of(distiset) == [20 * n + sum(range(20)) for n in range(5_000)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_global_step_is_given_a_million_rows(engine: Engine) -> None:
    with Pipeline(name="million") as pipeline:
        Numbers(name="numbers", count=1_000_000, batch_size=10_000) >> Count(name="count")
    began = time.monotonic()
    distiset = pipeline.run(engine=engine)
    print(f"{engine}: {time.monotonic() - began:.1f} s")
    assert list(distiset["default"]["train"]) == [{"rows": 1_000_000, "sum": 499_999_500_000}]
