"""A run's events as JSON lines."""

from __future__ import annotations

import json
from typing import Any

from distill_ray.events import RunFinished, StepFinished
from distill_ray.observe.recorder import SEGMENT, Recorder
from tests.observe.events_of_a_run import Clock, advanced, loading, started, working


class Folder(dict[str, bytes]):
    """Where a recorder writes."""

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for name in sorted(self) for line in self[name].splitlines()]


def test_events_are_written_with_their_kind_and_time() -> None:
    folder, clock = Folder(), Clock()
    recorder = Recorder(folder.__setitem__, clock)
    recorder.listen(started(loading()))
    clock.wait(1.25)
    recorder.listen(StepFinished("load", 40))
    recorder.flush()
    assert list(folder) == ["events-0001.jsonl"]
    first, second = folder.records()
    assert first["at"] == 0
    assert first["event"] == "RunStarted"
    assert first["steps"][0]["decision"] == "compute"
    assert second == {"at": 1.25, "event": "StepFinished", "step": "load", "rows": 40}


def test_advances_are_sampled_and_the_last_one_is_kept() -> None:
    folder, clock = Folder(), Clock()
    recorder = Recorder(folder.__setitem__, clock)
    recorder.listen(started(loading(), working()))
    for rows in range(1, 26):
        recorder.listen(advanced("load", 0, rows))
        clock.wait(0.125)
    recorder.listen(StepFinished("load", 25))
    recorder.flush()
    rows_out = [each["rows_out"] for each in folder.records() if each["event"] == "StepAdvanced"]
    assert rows_out == [1, 9, 17, 25]


def test_where_a_step_stood_when_the_run_ended_is_kept() -> None:
    folder = Folder()
    recorder = Recorder(folder.__setitem__, Clock())
    recorder.listen(started(loading(), working()))
    for rows in (1, 2, 3):
        recorder.listen(advanced("work", rows, rows))
    recorder.listen(RunFinished("r1", "interrupted", 1.0))
    recorder.flush()
    assert [each["event"] for each in folder.records()] == [
        "RunStarted",
        "StepAdvanced",
        "StepAdvanced",
        "RunFinished",
    ]
    assert folder.records()[2]["rows_out"] == 3


def test_a_long_run_is_written_in_several_files() -> None:
    folder = Folder()
    recorder = Recorder(folder.__setitem__, Clock())
    for number in range(SEGMENT + 1):
        recorder.listen(StepFinished("load", number))
    assert list(folder) == ["events-0001.jsonl"]
    recorder.flush()
    recorder.flush()
    assert list(folder) == ["events-0001.jsonl", "events-0002.jsonl"]
    assert [each["rows"] for each in folder.records()] == list(range(SEGMENT + 1))
