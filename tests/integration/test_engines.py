"""One suite for every engine: what a pipeline gives must not depend on where it runs."""

from __future__ import annotations

import importlib
import os
import random
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from distill_ray.engine.on_ray import executor
from distill_ray.errors import ResourceError, StepError
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import (
    GeneratorStep,
    GlobalStep,
    LoadDataFromDicts,
    Step,
    StepInput,
    StepResources,
    step,
)
from distill_ray.typing import GeneratorStepOutput, RuntimeParameter, StepOutput


class Numbers(GeneratorStep):
    count: int = 100

    @property
    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, self.count, self.batch_size):
            end = min(self.count, start + self.batch_size)
            yield [{"n": n} for n in range(start, end)], end == self.count
        if offset >= self.count:
            yield [], True


class Double(Step):
    """Doubles; sleeps a little, by chance, so that replicas overtake each other."""

    jitter: float = 0.0

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["twice"]

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(random.random() * self.jitter)
        for row in inputs:
            row["twice"] = 2 * row["n"]
        yield inputs


class Stays(Double):
    """Never comes back from unload()."""

    def unload(self) -> None:
        threading.Event().wait()


class Total(GlobalStep):
    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["total"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{"total": sum(row["n"] for row in inputs)}]


class Repeat(Step):
    times: int = 2

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            yield [{**row, "copy": copy} for copy in range(self.times)]


class Join(Step):
    def process(self, *inputs: Any) -> StepOutput:
        yield [{**left, **right} for left, right in zip(*inputs, strict=True)]


class Broken(Step):
    at: int = 40

    def process(self, inputs: StepInput) -> StepOutput:
        if any(row["n"] == self.at for row in inputs):
            raise ValueError("this row is not to my taste")
        yield inputs


def rows_of(distiset: Any, leaf: str = "default") -> list[dict[str, Any]]:
    return list(distiset[leaf]["train"].to_list())


def test_rows_leave_in_the_order_they_came_whatever_the_replicas_speed(engine: Engine) -> None:
    with Pipeline(name="order") as pipeline:
        resources = StepResources(replicas=3)
        Numbers(count=203) >> Double(jitter=0.01, input_batch_size=7, resources=resources)
    assert rows_of(pipeline.run(engine=engine)) == [{"n": n, "twice": 2 * n} for n in range(203)]


def test_a_step_may_change_the_number_of_rows(engine: Engine) -> None:
    with Pipeline(name="repeat") as pipeline:
        Numbers(count=25) >> Repeat(times=3, input_batch_size=4) >> Double()
    found = rows_of(pipeline.run(engine=engine))
    assert [(row["n"], row["copy"]) for row in found] == [(n, c) for n in range(25) for c in range(3)]


def test_a_step_that_gives_no_rows_gives_an_empty_data_set(engine: Engine) -> None:
    with Pipeline(name="none") as pipeline:
        Numbers(count=25) >> Repeat(times=0) >> Double()
    assert rows_of(pipeline.run(engine=engine)) == []


def test_a_global_step_sees_all_rows(engine: Engine) -> None:
    with Pipeline(name="total") as pipeline:
        Numbers(count=101) >> Total()
    assert rows_of(pipeline.run(engine=engine)) == [{"total": 5050}]


def test_several_predecessors_are_joined_row_by_row(engine: Engine) -> None:
    with Pipeline(name="join") as pipeline:
        numbers, double, repeat = Numbers(count=31), Double(input_batch_size=4), Repeat(times=1)
        numbers >> [double, repeat] >> Join(input_batch_size=9)
    expected = [{"n": n, "twice": 2 * n, "copy": 0} for n in range(31)]
    assert rows_of(pipeline.run(engine=engine)) == expected


def test_predecessors_of_different_length_are_an_error_that_names_both(engine: Engine) -> None:
    with Pipeline(name="uneven") as pipeline:
        numbers, double, repeat = Numbers(count=31), Double(name="double"), Repeat(name="repeat", times=2)
        numbers >> [double, repeat] >> Join(name="join")
    with pytest.raises(StepError, match=r"(?s)'join'.*'repeat' gave 62.*'double' gave 31"):
        pipeline.run(engine=engine)


def test_several_leaves_are_named(engine: Engine) -> None:
    with Pipeline(name="leaves") as pipeline:
        Numbers(count=5) >> [Double(name="double"), Total(name="total")]
    distiset = pipeline.run(engine=engine)
    assert set(distiset) == {"double", "total"}
    assert rows_of(distiset, "total") == [{"total": 10}]


def test_an_exception_names_step_rows_and_the_original_traceback(engine: Engine) -> None:
    with Pipeline(name="broken") as pipeline:
        Numbers(count=100) >> Broken(name="picky", at=47, input_batch_size=10)
    with pytest.raises(StepError) as caught:
        pipeline.run(engine=engine)
    assert caught.value.step == "picky"
    assert caught.value.rows == (40, 50)
    text = str(caught.value)
    assert "ValueError: this row is not to my taste" in text
    assert 'raise ValueError("this row is not to my taste")' in text
    assert "rows 40 to 49" in text


def test_what_was_finished_before_an_exception_is_not_computed_again(engine: Engine) -> None:
    with Pipeline(name="mended") as pipeline:
        picky = Broken(name="picky", at=47, input_batch_size=10, exclude_from_signature=frozenset({"at"}))
        Numbers(count=100) >> picky
    with pytest.raises(StepError):
        pipeline.run(engine=engine)
    picky.at = -1
    distiset = pipeline.run(engine=engine)
    assert len(rows_of(distiset)) == 100
    assert distiset.report.steps["picky"].decision == "resume"
    picky_report = distiset.report.steps["picky"]
    assert picky_report.rows_reused >= 40, "all batches before the one that raised were safe"
    assert picky_report.rows_reused + picky_report.rows_computed == 100


def test_an_exception_in_load_names_the_step(engine: Engine) -> None:
    class Unloadable(Double):
        def load(self) -> None:
            raise OSError("no such model")

    with Pipeline(name="unloadable") as pipeline:
        Numbers() >> Unloadable(name="heavy")
    with pytest.raises(StepError, match=r"(?s)'heavy'.*load\(\) raised OSError: no such model"):
        pipeline.run(engine=engine)


def test_load_and_unload_are_called_once_in_each_replica(engine: Engine, tmp_path: Path) -> None:
    class Logged(Double):
        folder: str

        def note(self, what: str) -> None:
            with Path(self.folder, what).open("a") as file:
                file.write(f"{os.getpid()}-{id(self)}\n")

        def load(self) -> None:
            self.note("load")

        def unload(self) -> None:
            self.note("unload")

    with Pipeline(name="logged") as pipeline:
        logged = Logged(folder=str(tmp_path), jitter=0.2, input_batch_size=5)
        logged.resources = StepResources(replicas=2)
        Numbers() >> logged
    pipeline.run(engine=engine)
    loaded = (tmp_path / "load").read_text().split()
    assert len(set(loaded)) == len(loaded)
    assert 1 <= len(loaded) <= 2, "one that came up too late is not waited for"
    assert sorted((tmp_path / "unload").read_text().split()) == sorted(loaded)


def test_a_step_that_yields_something_else_than_rows_is_told_so(engine: Engine) -> None:
    class Wrong(Double):
        def process(self, inputs: StepInput) -> StepOutput:
            yield "rows"  # type: ignore[misc]

    with Pipeline(name="wrong") as pipeline:
        Numbers() >> Wrong(name="wrong")
    with pytest.raises(StepError, match=r"'wrong', input rows 0 to 49.*must yield lists of dicts"):
        pipeline.run(engine=engine)


def test_rows_come_back_exactly(engine: Engine) -> None:
    data: list[dict[str, Any]] = [
        {"a": 1, "b": None, "c": [1, 2.0, "x"]},
        {"a": 1.0, "d": {"x": [], "y": {}}},
        {"a": "1", "b": True, "n": 2**70},
        {},
    ]

    @step(inputs=[], outputs=[])
    def same(inputs: StepInput) -> Iterator[list[dict[str, Any]]]:
        yield inputs

    with Pipeline(name="exact") as pipeline:
        LoadDataFromDicts(data=data, batch_size=3) >> same(input_batch_size=2)
    found = rows_of(pipeline.run(engine=engine))
    assert [{k: (type(v), v) for k, v in row.items()} for row in found] == [
        {k: (type(v), v) for k, v in row.items()} for row in data
    ]


def test_mappings_rename_columns_on_the_way_in_and_out(engine: Engine) -> None:
    with Pipeline(name="mapped") as pipeline:
        LoadDataFromDicts(data=[{"number": 4}]) >> Double(
            input_mappings={"n": "number"}, output_mappings={"twice": "eight"}
        )
    assert rows_of(pipeline.run(engine=engine)) == [{"number": 4, "eight": 8}]


def test_a_dry_run_takes_one_batch_and_leaves_nothing_behind(engine: Engine, cache_root: Path) -> None:
    with Pipeline(name="dry") as pipeline:
        Numbers(count=1_000) >> Double()
    assert rows_of(pipeline.dry_run(batch_size=3, engine=engine)) == [
        {"n": n, "twice": 2 * n} for n in range(3)
    ]
    assert not cache_root.exists()


def test_a_data_set_given_to_run_flows_into_the_first_steps(engine: Engine) -> None:
    with Pipeline(name="given") as pipeline:
        first = Double(name="first")
        first >> Repeat(times=1)
    found = rows_of(pipeline.run(dataset=[{"n": 1}, {"n": 5}], engine=engine))
    assert [row["twice"] for row in found] == [2, 10]


def test_runtime_parameters_change_the_run_and_not_the_pipeline(engine: Engine) -> None:
    @step(inputs=["n"], outputs=["n"])
    def add(inputs: StepInput, amount: RuntimeParameter[int] = 1) -> Iterator[list[dict[str, Any]]]:
        yield [{"n": row["n"] + amount} for row in inputs]

    with Pipeline(name="parameters") as pipeline:
        LoadDataFromDicts(data=[{"n": 1}]) >> add(name="add")
    assert rows_of(pipeline.run(parameters={"add": {"amount": 10}}, engine=engine)) == [{"n": 11}]
    assert rows_of(pipeline.run(engine=engine)) == [{"n": 2}]


def test_replicas_see_the_cpus_and_gpus_that_they_declared(local_ray: None) -> None:
    class Seen(Double):
        place: str = ""

        def process(self, inputs: StepInput) -> StepOutput:
            import ray

            assigned = ray.get_runtime_context().get_assigned_resources()
            yield [{"cpu": assigned.get("CPU", 0), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}]

    with Pipeline(name="seen") as pipeline:
        numbers = Numbers(count=1)
        numbers >> [
            Seen(name="none", place="none"),
            Seen(name="two", place="two", resources=StepResources(cpus=2)),
        ]
    distiset = pipeline.run()
    assert rows_of(distiset, "none") == [{"cpu": 0, "gpus": ""}]
    assert rows_of(distiset, "two") == [{"cpu": 2.0, "gpus": ""}]


def test_a_step_that_no_node_can_hold_is_refused_by_name(local_ray: None) -> None:
    with Pipeline(name="huge") as pipeline:
        Numbers() >> Double(name="huge", resources=StepResources(gpus=8))
    with pytest.raises(ResourceError, match=r"'huge' declares GPU 8 for each"):
        pipeline.run()


def test_steps_that_together_ask_for_more_than_there_is_run_one_after_the_other(local_ray: None) -> None:
    """Four CPUs; each of three steps takes three of them: the first ends, then the next can start."""
    three = StepResources(cpus=3)
    with Pipeline(name="scarce") as pipeline:
        numbers = Numbers(count=30, resources=three)
        numbers >> Double(resources=three) >> Repeat(times=1, resources=three)
    assert len(rows_of(pipeline.run())) == 30


def test_a_replica_that_never_unloads_keeps_no_step_from_its_place(
    local_ray: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executor, "CLOSE_SECONDS", 1)
    monkeypatch.setattr(executor, "LOOK_SECONDS", 0.5)
    three = StepResources(cpus=3)
    with Pipeline(name="stays") as pipeline:
        Numbers(count=30) >> Stays(resources=three) >> Repeat(times=1, resources=three)
    assert len(rows_of(pipeline.run())) == 30
    assert "Step 'stays_0': unload() took longer than 1 s" in caplog.text


def test_replicas_that_find_no_room_are_not_waited_for(local_ray: None) -> None:
    with Pipeline(name="crowded") as pipeline:
        Numbers(count=30) >> Double(input_batch_size=3, resources=StepResources(cpus=3, replicas=4))
    distiset = pipeline.run()
    assert len(rows_of(distiset)) == 30
    assert distiset.report.steps["double_0"].replicas == 1


def test_a_step_may_have_a_field_named_label(engine: Engine) -> None:
    class Classify(Step):
        label: str = "positive"

        def process(self, inputs: StepInput) -> StepOutput:
            yield inputs

    with Pipeline(name="labels") as pipeline:
        LoadDataFromDicts(data=[{"n": 1}]) >> Classify()
    assert list(pipeline.graph.steps) == ["load_data_from_dicts_0", "classify_0"]
    assert rows_of(pipeline.run(engine=engine)) == [{"n": 1}]


def test_modules_from_any_folder_of_the_drivers_path_are_found_on_the_actors(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_steps.py").write_text(
        "from distill_ray.steps import Step\n"
        "class Triple(Step):\n"
        "    def process(self, inputs):\n"
        "        yield [{**row, 'triple': 3 * row['n']} for row in inputs]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    triple = importlib.import_module("my_steps").Triple
    with Pipeline(name="modules") as pipeline:
        Numbers(count=2) >> triple()
    assert rows_of(pipeline.run()) == [{"n": 0, "triple": 0}, {"n": 1, "triple": 3}]


def test_a_step_whose_module_the_nodes_lack_is_told_how_to_ship_it(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_here")
    exec(
        "from distill_ray.steps import Step\nclass Lost(Step):\n    version = '1'\n    "
        "def process(self, inputs):\n        yield inputs\n",
        vars(module),
    )
    monkeypatch.setitem(sys.modules, "only_here", module)
    with Pipeline(name="lost") as pipeline:
        Numbers(count=2) >> module.Lost(name="lost")
    with pytest.raises(StepError, match=r"(?s)'lost'.*No module named 'only_here'.*--working-dir"):
        pipeline.run()


def test_a_step_that_cannot_be_sent_is_named(local_ray: None) -> None:
    class Locked(Double):
        _lock: Any = PrivateAttr(default_factory=threading.Lock)

    with Pipeline(name="locked") as pipeline:
        Numbers(count=2) >> Locked(name="locked")
    with pytest.raises(StepError, match=r"(?s)'locked': it cannot be sent to its replicas.*in load\(\)"):
        pipeline.run()


def test_another_replica_takes_the_place_of_one_that_dies(tmp_path: Path, local_ray: None) -> None:
    class Dies(Double):
        folder: str
        deaths: int
        exclude_from_signature: frozenset[str] = frozenset({"folder", "deaths"})

        def process(self, inputs: StepInput) -> StepOutput:
            died = Path(self.folder)
            if any(row["n"] == 40 for row in inputs) and len(list(died.iterdir())) < self.deaths:
                (died / str(os.getpid())).touch()
                os._exit(1)
            yield from super().process(inputs)

    def pipeline(deaths: int) -> Pipeline:
        with Pipeline(name="dies") as made:
            fragile = Dies(name="fragile", folder=str(tmp_path / "died"), deaths=deaths, input_batch_size=10)
            Numbers(count=60) >> fragile
        return made

    (tmp_path / "died").mkdir()
    # A row at which replicas keep dying ends the run, which says which one; what was done is not done again.
    with pytest.raises(
        StepError, match=r"'fragile', input rows 40 to 49: \d processes were lost at these rows"
    ):
        pipeline(deaths=10).run()
    distiset = pipeline(deaths=len(list((tmp_path / "died").iterdir())) + 1).run()
    assert len(rows_of(distiset)) == 60
    report = distiset.report.steps["fragile"]
    assert report.replicas_lost == 1
    assert report.rows_computed + report.rows_reused == 60


def test_what_a_replica_gathers_in_itself_leaves_the_step_as_it_was(engine: Engine) -> None:
    class Remembers(Double):
        _seen: list[int] = PrivateAttr(default_factory=list)

        def process(self, inputs: StepInput) -> StepOutput:
            self._seen.extend(row["n"] for row in inputs)
            yield inputs

    with Pipeline(name="remembers") as pipeline:
        Numbers() >> Remembers(name="remembers")
    pipeline.run(engine=engine)
    assert pipeline.plan()["remembers"].decision == "hit"
