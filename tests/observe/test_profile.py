"""The Chrome trace of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import ParameterError, StepError
from distill_ray.events import (
    CallLost,
    Queue,
    QueuesMeasured,
    ReplicaDown,
    ReplicaStarting,
    ReplicaUp,
    RunFinished,
    RunStopping,
    StepBegun,
    StepCommitting,
    StepFinished,
)
from distill_ray.observe.profile import ChromeTrace, make_profile
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from tests.observe.events_of_a_run import Clock, call, loading, started, working


class Drawing:
    """A trace that is being written, and what stands in it."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.path = path
        self.listen = ChromeTrace(path, silent=True, clock=self.clock)
        self.listen(started(loading(), working()))

    def records(self, phase: str = "X") -> list[dict[str, Any]]:
        return [each for each in json.loads(self.path.read_bytes()) if each["ph"] == phase]

    def spans(self) -> list[tuple[str, str, float, float]]:
        """(thread, name, from second, to second) of each span, in order."""
        threads = {(e["pid"], e["tid"]): e["args"] for e in self.records("M") if e["name"] == "thread_name"}
        return [
            (
                threads[each["pid"], each["tid"]].get("name", ""),
                each["name"],
                each["ts"] / 1e6,
                (each["ts"] + each["dur"]) / 1e6,
            )
            for each in self.records()
        ]


@pytest.fixture
def drawing(tmp_path: Path) -> Drawing:
    return Drawing(tmp_path / "trace.json")


def test_a_step_is_a_process_and_a_replica_a_thread(drawing: Drawing) -> None:
    drawing.listen(StepBegun("work"))
    drawing.listen(ReplicaStarting("work", 1))
    drawing.clock.wait(2)
    drawing.listen(ReplicaUp("work", 1))
    drawing.clock.wait(1.5)
    drawing.listen(call("work", 1, seconds=1.0, lag=0.25))
    drawing.clock.wait(0.5)
    drawing.listen(StepCommitting("work"))
    drawing.clock.wait(1)
    drawing.listen(StepFinished("work", 10))
    drawing.listen(RunFinished("r1", "complete", 5.0))
    assert drawing.spans() == [
        ("replica 1", "start and load", 0, 2),
        ("replica 1", "compute", 2.25, 3.25),
        ("step", "write manifest", 4, 5),
        ("step", "step", 0, 5),
        ("run", "run r1", 0, 5),
    ]
    names = {e["pid"]: e["args"]["name"] for e in drawing.records("M") if e["name"] == "process_name"}
    assert names == {0: "pipeline 'p'", 1: "load", 2: "work"}


def test_calls_at_the_same_time_stand_below_each_other_and_others_beside(drawing: Drawing) -> None:
    drawing.clock.wait(1)
    drawing.listen(call("work", 0, seconds=1.0))
    drawing.clock.wait(1)
    drawing.listen(call("work", 0, seconds=1.01))  # followed the first: its answer was faster
    drawing.listen(call("work", 0, seconds=1.5))  # ran beside both
    drawing.clock.wait(1)
    drawing.listen(call("work", 0, seconds=0.75))
    drawing.listen(RunFinished("r1", "complete", 3.0))
    assert drawing.spans()[:4] == [
        ("replica 0", "compute", 0, 1),
        ("replica 0", "compute", 1, 2),
        ("replica 0, call 2", "compute", 0.5, 2),
        ("replica 0", "compute", 2.25, 3),
    ]


def test_what_is_under_way_when_a_run_is_stopped_is_drawn_to_its_end(drawing: Drawing) -> None:
    drawing.listen(StepBegun("work"))
    drawing.listen(ReplicaStarting("work", 0))
    drawing.clock.wait(1)
    drawing.listen(ReplicaDown("work", 0, "ActorDiedError", loaded=False))
    drawing.listen(RunStopping(2))
    drawing.clock.wait(3)
    drawing.listen(CallLost("work", 1, "compute", 10, seconds=3.5))
    drawing.listen(RunFinished("r1", "interrupted", 4.0, "stopped"))
    assert drawing.spans() == [
        ("replica 0", "start and load", 0, 1),
        ("replica 1", "compute: lost", 0.5, 4),
        ("run", "run r1", 0, 4),
        ("step", "step", 0, 4),
    ]
    names = [each["name"] for each in drawing.records("i")]
    assert names == ["died: ActorDiedError", "asked to stop", "interrupted"]


def test_queues_are_counters(drawing: Drawing) -> None:
    drawing.listen(QueuesMeasured((Queue("work", rows=7, nbytes=800, calls=2),)))
    drawing.listen(RunFinished("r1", "complete", 1.0))
    values = {each["name"]: each["args"]["value"] for each in drawing.records("C")}
    assert values == {"rows waiting": 7, "bytes in memory": 800, "calls under way": 2}


def test_the_file_can_be_read_but_for_its_end_whatever_ends_the_run(drawing: Drawing) -> None:
    for number in range(1_000):
        drawing.listen(call("work", number % 3))
    written = drawing.path.read_text()
    drawing.listen(RunFinished("r1", "complete", 1.0))
    whole = written[: written.rindex(",\n")]
    assert len(json.loads(f"{whole}]")) > 500


def test_a_disk_that_is_full_is_said_and_ends_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "full.json"
    path.symlink_to("/dev/full")
    trace = ChromeTrace(path)
    trace(started(loading(), working()))
    for number in range(1_000):
        trace(call("work", number))
    trace(RunFinished("r1", "complete", 1.0))
    assert "is not complete" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["pipeline.py", "trace", "trace.json.gz", Path("trace"), 3])
def test_only_a_name_of_json_is_written_over(name: Any) -> None:
    with pytest.raises(ParameterError, match=r"ends with \.json"):
        make_profile(name)


def test_a_file_that_cannot_be_written_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be written"):
        pipeline().run(engine="inline", profile=tmp_path / "nowhere" / "trace.json")
    assert not list(tmp_path.rglob("*.parquet"))


class Fails(Step):
    """Does two batches."""

    def process(self, inputs: StepInput) -> StepOutput:
        if inputs[0]["n"] >= 20:
            raise ValueError("enough")
        yield inputs


def pipeline() -> Pipeline:
    with Pipeline(name="drawn") as made:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(100)])
        load >> Fails(name="fails", input_batch_size=10)
    return made


def test_a_run_that_fails_is_drawn_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.json"
    with pytest.raises(StepError):
        pipeline().run(engine="inline", profile=path)
    records = json.loads(path.read_bytes())
    assert "compute" in [each["name"] for each in records if each["ph"] == "X"]
    assert "failed" in [each["name"] for each in records if each["ph"] == "i"]
    assert f"profile: {path}" in capsys.readouterr().err
