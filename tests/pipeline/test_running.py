"""What a run leaves behind beside its rows."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import StepError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, RuntimeParameter, Step, StepInput
from distill_ray.types import StepOutput


class Add(Step):
    more: RuntimeParameter[int] = 0
    bad: RuntimeParameter[bool] = False

    def process(self, inputs: StepInput) -> StepOutput:
        if self.bad:
            raise ValueError("bad")
        yield [{"n": row["n"] + self.more} for row in inputs]


def pipeline() -> Pipeline:
    with Pipeline(name="../adding") as made:
        LoadDataFromDicts(name="load", data=[{"n": 1}]) >> Add(name="add")
    return made


def record(root: Path, kind: str) -> dict[str, Any]:
    (path,) = root.glob(f"pipelines/*/{kind}.json")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_the_steps_of_a_run_are_remembered_under_the_pipelines_name(cache_root: Path) -> None:
    report = pipeline().run(engine="inline").report
    plan = pipeline().plan()
    for kind in ("latest", "finished"):
        assert record(cache_root, kind) == {
            "name": "../adding",
            "run": report.run,
            "steps": {
                "load": {
                    "class": "LoadDataFromDicts",
                    "function": plan["load"].function.signature,
                    "output_key": plan["load"].output_key,
                    "predecessors": [],
                    "limit": None,
                    "batch_size": None,
                    "routing": None,
                },
                "add": {
                    "class": "Add",
                    "function": plan["add"].function.signature,
                    "output_key": plan["add"].output_key,
                    "predecessors": ["load"],
                    "limit": None,
                    "batch_size": 50,
                    "routing": None,
                },
            },
        }


def test_a_run_that_fails_is_the_latest_but_not_the_last_finished_one(cache_root: Path) -> None:
    finished = pipeline().run(engine="inline").report.run
    with pytest.raises(StepError):
        pipeline().run({"add": {"bad": True}}, engine="inline")
    assert record(cache_root, "finished")["run"] == finished
    assert record(cache_root, "latest")["run"] != finished


def test_an_error_of_a_run_comes_without_the_way_through_the_engine() -> None:
    with pytest.raises(StepError, match="ValueError: bad") as caught:
        pipeline().run({"add": {"bad": True}}, engine="inline")
    files = [Path(frame.filename) for frame in traceback.extract_tb(caught.tb)]
    assert files[0] == Path(__file__)
    assert {file.name for file in files[1:]} == {"pipeline.py"}
    assert "During handling" not in "".join(traceback.format_exception(caught.value))


def test_a_complete_hit_is_the_latest_run_too_once_other_steps_have_run(cache_root: Path) -> None:
    pipeline().run(engine="inline")
    pipeline().run({"add": {"more": 1}}, engine="inline")
    hit = pipeline().run(engine="inline").report.run
    for kind in ("latest", "finished"):
        assert record(cache_root, kind)["run"] == hit


def test_a_complete_hit_writes_nothing_where_the_records_say_already_what_it_would(cache_root: Path) -> None:
    first = pipeline().run(engine="inline").report.run
    for _ in range(2):
        before = {path: path.stat().st_mtime_ns for path in cache_root.rglob("*")}
        assert pipeline().run(engine="inline").report.rows_computed == 0
        assert {path: path.stat().st_mtime_ns for path in cache_root.rglob("*")} == before
    assert record(cache_root, "latest")["run"] == first


def test_the_first_hit_of_a_day_is_recorded_and_its_note_takes_the_place_of_the_one_before(
    cache_root: Path,
) -> None:
    yesterday = pipeline().run(engine="inline").report.run
    (note,) = cache_root.glob("steps/*/parts/_used.*")
    note.rename(note.with_name(note.name.replace(yesterday[:8], "20260101")))
    for kind in ("latest", "finished"):
        (path,) = cache_root.glob(f"pipelines/*/{kind}.json")
        path.write_text(path.read_text().replace(yesterday[:8], "20260101"))
    hit = pipeline().run(engine="inline").report.run
    assert record(cache_root, "latest")["run"] == record(cache_root, "finished")["run"] == hit
    assert list(cache_root.glob("steps/*/parts/_used.*")) == [note]
    assert (cache_root / "runs" / hit / "run.json").exists()


def test_a_run_that_fails_makes_the_next_hit_the_latest_run(cache_root: Path) -> None:
    pipeline().run(engine="inline")
    with pytest.raises(StepError):
        pipeline().run({"add": {"bad": True}}, engine="inline")
    hit = pipeline().run(engine="inline").report.run
    assert record(cache_root, "latest")["run"] == hit


def test_pipelines_of_two_names_each_record_that_they_used_an_output(cache_root: Path) -> None:
    pipeline().run(engine="inline")
    other = pipeline()
    other._name = "another"
    assert other.run(engine="inline").report.rows_computed == 0
    assert len(list(cache_root.glob("steps/*/parts/_used.*"))) == 2
    assert {path.parent.name for path in cache_root.glob("pipelines/*/latest.json")} >= {"another"}


def test_the_report_names_function_and_output_of_each_step() -> None:
    report = pipeline().run(engine="inline").report
    plan = pipeline().plan()
    for name, step in report.steps.items():
        assert step.function == plan[name].function.signature
        assert step.output_key == plan[name].output_key
    assert [step.class_name for step in report.steps.values()] == ["LoadDataFromDicts", "Add"]
