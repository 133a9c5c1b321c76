"""What a later run takes from the cache and what it computes: the same on every engine.

Every step here writes each row it computes to a file, so that the tests count real work and not what a
report says of it.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_ray.distiset import Distiset
from distill_ray.errors import StepError
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from tests.damage import cut, flip

WORK = "work.log"


class Traced(Step):
    """Adds a column; ``log`` is a file that each computed row is appended to."""

    log: str
    exclude_from_signature: frozenset[str] = frozenset({"log"})

    def note(self, rows: list[dict[str, Any]]) -> None:
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.writelines(f"{self.name} {row['n']}\n" for row in rows)


class Add(Traced):
    amount: int = 1
    column: str = "sum"
    remark: str = ""

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        yield [{**row, self.column: row["n"] + self.amount} for row in inputs]


class Sample(Traced):
    """Gives something else each time it is asked, as a model does."""

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        yield [{**row, "sample": random.random()} for row in inputs]


class Filter(Traced):
    """Keeps even numbers."""

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        yield [row for row in inputs if row["n"] % 2 == 0]


class FailsAt(Traced):
    at: int = -1
    exclude_from_signature: frozenset[str] = frozenset({"log", "at"})

    def process(self, inputs: StepInput) -> StepOutput:
        if any(row["n"] == self.at for row in inputs):
            raise ValueError("the power went out")
        self.note(inputs)
        yield [{**row, "passed": True} for row in inputs]


class Lab:
    """Makes pipelines of a loader and one chain of steps, runs them, and counts what was computed."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.log = folder / WORK

    def pipeline(self, *steps: Traced, rows: int = 20, data: list[dict[str, Any]] | None = None) -> Pipeline:
        with Pipeline(name="lab") as pipeline:
            rows_in = data if data is not None else [{"n": n} for n in range(rows)]
            last: Any = LoadDataFromDicts(name="load", data=rows_in, batch_size=5)
            for step in steps:
                pipeline.add_step(step)
                last = last >> step
        return pipeline

    def run(self, pipeline: Pipeline, **options: Any) -> tuple[Distiset, Counter[str]]:
        """Return the rows and how many rows each step really computed."""
        self.log.write_text("", encoding="utf-8")
        distiset = pipeline.run(engine=self.engine, **options)
        return distiset, self.computed()

    def computed(self) -> Counter[str]:
        return Counter(line.split()[0] for line in self.log.read_text(encoding="utf-8").splitlines())

    def add(self, name: str, **fields: Any) -> Add:
        return Add(name=name, log=str(self.log), input_batch_size=5, **fields)

    def step(self, kind: type[Traced], name: str, **fields: Any) -> Traced:
        return kind(name=name, log=str(self.log), input_batch_size=5, **fields)


@pytest.fixture
def lab(engine: Engine, tmp_path: Path) -> Lab:
    return Lab(engine, tmp_path)


def rows_of(distiset: Distiset) -> list[dict[str, Any]]:
    return distiset["default"]["train"].to_list()


def decisions(distiset: Distiset) -> dict[str, str]:
    return {name: step.decision for name, step in distiset.report.steps.items()}


def test_a_second_run_computes_nothing(lab: Lab) -> None:
    first, computed = lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="twice")))
    assert computed == {"one": 20, "two": 20}
    second, computed = lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="twice")))
    assert computed == {}
    assert rows_of(second) == rows_of(first)
    assert decisions(second) == {"load": "not needed", "one": "not needed", "two": "hit"}


def test_a_changed_last_step_is_the_only_one_computed(lab: Lab) -> None:
    lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="twice")))
    found, computed = lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="twice", amount=7)))
    assert computed == {"two": 20}
    assert [row["twice"] for row in rows_of(found)] == [n + 7 for n in range(20)]
    assert decisions(found) == {"load": "not needed", "one": "hit", "two": "compute"}


def test_a_changed_middle_step_gives_the_new_rows(lab: Lab) -> None:
    lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="twice")))
    found, computed = lab.run(lab.pipeline(lab.add("one", amount=100), lab.add("two", column="twice")))
    assert computed == {"one": 20, "two": 20}
    assert [row["sum"] for row in rows_of(found)] == [n + 100 for n in range(20)]


def test_a_step_added_downstream_finds_everything_above_it(lab: Lab) -> None:
    lab.run(lab.pipeline(lab.add("one")))
    found, computed = lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="twice")))
    assert computed == {"two": 20}
    assert rows_of(found) == [{"n": n, "sum": n + 1, "twice": n + 1} for n in range(20)]


def test_changed_loader_data_gives_the_new_rows(lab: Lab) -> None:
    lab.run(lab.pipeline(lab.add("one"), rows=20))
    found, _ = lab.run(lab.pipeline(lab.add("one"), data=[{"n": n} for n in range(50, 60)]))
    assert rows_of(found) == [{"n": n, "sum": n + 1} for n in range(50, 60)]


def test_appended_rows_are_the_only_ones_computed(lab: Lab) -> None:
    lab.run(lab.pipeline(lab.add("one"), rows=20))
    found, computed = lab.run(lab.pipeline(lab.add("one"), rows=30))
    assert computed == {"one": 10}
    assert rows_of(found) == [{"n": n, "sum": n + 1} for n in range(30)]
    assert found.report.steps["one"].rows_reused == 20
    assert found.report.steps["one"].rows_computed == 10


def test_use_cache_false_on_a_step_computes_it_and_all_below_it(lab: Lab) -> None:
    lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="b"), lab.add("three", column="c")))
    pipeline = lab.pipeline(
        lab.add("one"), lab.add("two", column="b", use_cache=False), lab.add("three", column="c")
    )
    found, computed = lab.run(pipeline)
    assert computed == {"two": 20, "three": 20}
    assert decisions(found) == {"load": "not needed", "one": "hit", "two": "forced", "three": "forced"}


def test_use_cache_false_on_the_run_computes_everything_and_later_runs_find_it(lab: Lab) -> None:
    first, _ = lab.run(lab.pipeline(lab.step(Sample, "draw"), lab.add("after")))
    again, computed = lab.run(lab.pipeline(lab.step(Sample, "draw"), lab.add("after")), use_cache=False)
    assert computed == {"draw": 20, "after": 20}
    assert rows_of(again) != rows_of(first)
    later, computed = lab.run(lab.pipeline(lab.step(Sample, "draw"), lab.add("after")))
    assert computed == {}
    assert rows_of(later) == rows_of(again), "what a forced run wrote is what later runs find"


def test_a_step_below_one_that_was_computed_again_with_equal_rows_is_reused(lab: Lab) -> None:
    lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="b")))
    changed = lab.add("one", remark="another function, equal rows")
    found, computed = lab.run(lab.pipeline(changed, lab.add("two", column="b")))
    assert computed == {"one": 20}
    assert found.report.steps["two"].rows_reused == 20


def test_units_without_rows_count_as_done(lab: Lab) -> None:
    data = [{"n": n} for n in (1, 3, 5, 7, 9, 2, 4, 6, 8, 10)]
    lab.run(lab.pipeline(lab.step(Filter, "even"), data=data))
    found, computed = lab.run(lab.pipeline(lab.step(Filter, "even"), data=[*data, {"n": 12}]))
    assert computed == {"even": 1}
    assert [row["n"] for row in rows_of(found)] == [2, 4, 6, 8, 10, 12]


def test_equal_batches_stay_separate(lab: Lab) -> None:
    data = [{"n": 1}] * 15
    first, computed = lab.run(lab.pipeline(lab.step(Sample, "draw"), data=data))
    assert computed == {"draw": 15}
    assert len({row["sample"] for row in rows_of(first)}) == 15
    second, computed = lab.run(lab.pipeline(lab.step(Sample, "draw"), data=data + [{"n": 1}] * 5))
    assert computed == {"draw": 5}
    assert rows_of(second)[:15] == rows_of(first)


def test_after_a_crash_only_the_rest_is_computed_also_with_a_step_added_downstream(lab: Lab) -> None:
    with pytest.raises(StepError, match="the power went out"):
        lab.run(lab.pipeline(lab.step(FailsAt, "work", at=12)))
    done = lab.computed()["work"]
    assert 0 < done < 20
    found, computed = lab.run(lab.pipeline(lab.step(FailsAt, "work"), lab.add("more")))
    assert computed == {"work": 20 - done, "more": 20}
    assert rows_of(found) == [{"n": n, "passed": True, "sum": n + 1} for n in range(20)]
    assert found.report.steps["work"].decision == "resume"


def test_another_pipeline_on_the_same_root_finds_the_same_steps(lab: Lab) -> None:
    lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="b")))
    with Pipeline(name="colleague") as pipeline:
        load = LoadDataFromDicts(name="my_rows", data=[{"n": n} for n in range(20)], batch_size=7)
        load >> lab.add("mine") >> lab.add("my_last", column="z")
    found, computed = lab.run(pipeline)
    assert computed == {"my_last": 20}, "names of steps and batch sizes of a source are no part of a key"
    assert decisions(found)["mine"] == "hit"


def test_rows_of_two_samplings_are_never_joined(lab: Lab) -> None:
    """A hit made from other rows of a shared step than its sibling is computed again."""

    def fork(*, sides: tuple[str, ...], fresh: bool = False) -> Pipeline:
        with Pipeline(name="fork") as pipeline:
            load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(10)], batch_size=5)
            draw = lab.step(Sample, "draw", use_cache=not fresh)
            load >> draw
            for side in sides:
                draw >> lab.add(side, column=side)
        return pipeline

    lab.run(fork(sides=("left",)))
    lab.run(fork(sides=("right",), fresh=True))
    found, _ = lab.run(fork(sides=("left", "right")))
    samples = [[row["sample"] for row in found[side]["train"]] for side in ("left", "right")]
    assert samples[0] == samples[1]


def test_a_part_that_was_cut_is_not_believed_and_its_rows_are_computed_again(
    lab: Lab, cache_root: Path
) -> None:
    first = rows_of(lab.run(lab.pipeline(lab.add("one")))[0])
    (part,) = cache_root.glob("steps/Add-*/parts/*.parquet")
    cut(part, 100)
    plan = lab.pipeline(lab.add("one")).plan()
    assert plan["one"].decision in ("compute", "resume")
    assert "parts" in plan["one"].reason
    second, computed = lab.run(lab.pipeline(lab.add("one")))
    assert computed == {"one": 20}
    assert rows_of(second) == first


def test_a_manifest_that_was_cut_is_not_believed(lab: Lab, cache_root: Path) -> None:
    first, _ = lab.run(lab.pipeline(lab.add("one")))
    (manifest,) = cache_root.glob("steps/Add-*/outputs/*.json")
    manifest.write_bytes(manifest.read_bytes()[:50])
    second, computed = lab.run(lab.pipeline(lab.add("one")))
    assert computed == {}, "the parts are whole, so the rows are found by their units"
    assert rows_of(second) == rows_of(first)
    assert decisions(lab.run(lab.pipeline(lab.add("one")))[0])["one"] == "hit", "the manifest was mended"


def test_a_part_with_a_flipped_bit_is_never_served(lab: Lab, cache_root: Path) -> None:
    lab.run(lab.pipeline(lab.add("one")))
    (part,) = cache_root.glob("steps/Add-*/parts/*.parquet")
    flip(part, 60)
    found, computed = lab.run(lab.pipeline(lab.add("one"), lab.add("two", column="b")))
    assert computed == {"one": 20, "two": 20}, "the run went on and made them again"
    assert "'two'" in found.report.repairs[0]
    assert "not what was written" in found.report.repairs[0]
    assert rows_of(found) == [{"n": n, "sum": n + 1, "b": n + 1} for n in range(20)]


def test_two_equal_steps_of_one_pipeline_stay_two(lab: Lab) -> None:
    """Asking a model twice gives two answers; neither run nor cache makes one of them."""

    def twice() -> Pipeline:
        with Pipeline(name="twice") as pipeline:
            load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(10)], batch_size=5)
            load >> [lab.step(Sample, "first"), lab.step(Sample, "second")]
        return pipeline

    def samples(distiset: Distiset, leaf: str) -> list[float]:
        return [row["sample"] for row in distiset[leaf]["train"]]

    made, computed = lab.run(twice())
    assert computed == {"first": 10, "second": 10}
    assert samples(made, "first") != samples(made, "second")
    found, computed = lab.run(twice())
    assert computed == {}
    for leaf in ("first", "second"):
        assert samples(found, leaf) == samples(made, leaf)


def test_an_equal_step_added_later_gives_answers_of_its_own(lab: Lab, cache_root: Path) -> None:
    """Also where nothing asks for the first one's rows, and where only the second has to be mended."""

    def pipeline(*names: str) -> Pipeline:
        with Pipeline(name="more") as pipeline:
            load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(10)], batch_size=5)
            for name in names:
                load >> lab.step(Sample, name) >> lab.step(Add, f"{name}_sum", remark=name)
        return pipeline

    def samples(distiset: Distiset, leaf: str) -> list[float]:
        split = distiset[leaf if leaf in distiset else "default"]["train"]
        return [row["sample"] for row in split]

    one, _ = lab.run(pipeline("first"))
    two, computed = lab.run(pipeline("first", "second"))
    assert computed == {"second": 10, "second_sum": 10}
    assert two.report.steps["second"].decision == "compute"
    assert samples(two, "first_sum") == samples(one, "first_sum")
    assert not set(samples(two, "first_sum")) & set(samples(two, "second_sum"))

    names = {
        step.name: f"steps/*/outputs/{step.output_key}.json"
        for step in pipeline("first", "second").plan().steps
    }
    for name in ("second", "second_sum"):
        (manifest,) = cache_root.glob(names[name])
        manifest.unlink()
    again, computed = lab.run(pipeline("first", "second"))
    assert computed == {}
    for name in ("first_sum", "second_sum"):
        assert samples(again, name) == samples(two, name)
