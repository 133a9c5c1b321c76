"""A run's events as JSON lines."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distill_ray.events import Queue, QueuesMeasured, RunFinished, RunStopping, StepFinished
from distill_ray.observe.recorder import FLUSH_SECONDS, SEGMENT, SINGLE_CALLS, Recorder
from tests.observe.events_of_a_run import Clock, advanced, call, loading, started, working


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


def test_few_calls_are_kept_one_by_one_and_many_are_added_up_by_step() -> None:
    folder, clock = Folder(), Clock()
    recorder = Recorder(folder.__setitem__, clock)
    recorder.listen(started(loading(), working()))
    for number in range(1_000):
        recorder.listen(call("work", number % 4))
        clock.wait(0.001)
    recorder.listen(RunFinished("r1", "complete", 1.0))
    recorder.flush()
    kinds = Counter(each["event"] for each in folder.records())
    assert kinds["CallDone"] == SINGLE_CALLS
    (rest,) = [each for each in folder.records() if each["event"] == "CallsDone"]
    assert (rest["step"], rest["calls"], rest["replicas"]) == ("work", 1_000 - SINGLE_CALLS, 4)
    assert (rest["rows_in"], rest["longest"]) == (10 * rest["calls"], 0.5)


def test_what_is_kept_of_a_run_grows_far_slower_than_the_run() -> None:
    def kept(minutes: int) -> int:
        folder, clock = Folder(), Clock()
        recorder = Recorder(folder.__setitem__, clock)
        recorder.listen(started(loading(), working()))
        for _ in range(minutes * 60):
            for _ in range(SINGLE_CALLS + 1):
                recorder.listen(call("work", 0))
            recorder.listen(advanced("work", 1, 1))
            recorder.listen(QueuesMeasured((Queue("work", 1),)))
            clock.wait(1)
        recorder.flush()
        assert len(folder) <= minutes
        return len(folder.records())

    assert kept(90) < 2 * kept(30)


def test_every_call_is_counted_in_what_is_kept() -> None:
    folder, clock = Folder(), Clock()
    recorder = Recorder(folder.__setitem__, clock)
    recorder.listen(started(loading(), working()))
    for number in range(5_000):
        recorder.listen(call("work" if number % 3 else "load", 0))
        clock.wait(0.003)
    recorder.listen(RunFinished("r1", "failed", 1.0))
    recorder.flush()
    assert sum(each["rows_in"] for each in folder.records() if "rows_in" in each) == 50_000


def test_queues_are_kept_as_they_stood_last() -> None:
    folder, clock = Folder(), Clock()
    recorder = Recorder(folder.__setitem__, clock)
    recorder.listen(started(loading(), working()))
    for rows in (1, 2, 3):
        recorder.listen(QueuesMeasured((Queue("work", rows), Queue("load", 7))))
    recorder.listen(RunFinished("r1", "complete", 1.0))
    recorder.flush()
    (measured,) = [each for each in folder.records() if each["event"] == "QueuesMeasured"]
    assert [(each["step"], each["rows"]) for each in measured["queues"]] == [("work", 3), ("load", 7)]


def test_a_quiet_run_is_written_now_and_then() -> None:
    folder, clock = Folder(), Clock()
    recorder = Recorder(folder.__setitem__, clock)
    recorder.listen(started(loading(), working()))
    clock.wait(FLUSH_SECONDS)
    recorder.listen(StepFinished("load", 1))
    assert list(folder) == ["events-0001.jsonl"]


def test_a_signal_may_come_while_a_slow_storage_is_written_to() -> None:
    folder, clock = Folder(), Clock()
    writing, written = threading.Event(), threading.Event()

    def write(name: str, data: bytes) -> None:
        writing.set()
        assert written.wait(20)
        folder[name] = data

    recorder = Recorder(write, clock)
    for _ in range(SINGLE_CALLS):
        recorder.listen(call("load", 0))
        recorder.listen(call("work", 0))
    clock.wait(2 * FLUSH_SECONDS)
    with ThreadPoolExecutor(2) as pool:
        heard = pool.submit(recorder.listen, call("load", 0))
        assert writing.wait(20)
        stopping = threading.Thread(target=recorder.listen, args=[RunStopping(15, (), 0.0)])
        stopping.start()
        stopping.join(0.1)  # it has begun
        written.set()
        heard.result()
        stopping.join()
    recorder.flush()
    events = [each["event"] for each in folder.records()]
    assert events.count("RunStopping") == 1
    assert events.count("CallsDone") == 2
