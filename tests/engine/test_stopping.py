"""What signals do to a run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from distill_ray.engine.inline import InlineExecutor
from distill_ray.engine.stopping import SIGNALS, handlers_kept, stop_on_signals
from distill_ray.errors import RunEndedError, RunInterruptedError
from distill_ray.events import (
    CallDone,
    ReplicaUp,
    RunEvent,
    RunStarted,
    RunStopping,
    StepCommitting,
    StepFinished,
)
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine, RunRequest, run
from distill_ray.steps import LoadDataFromDicts, RuntimeParameter, Step, StepInput, StepOutput
from distill_ray.types import Unsigned
from tests.acceptance.conftest import wait_until


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_the_second_raises(number: int) -> None:
    asked: list[int] = []
    with stop_on_signals(asked.append):
        send(number)
        assert asked == [number]
        with pytest.raises(KeyboardInterrupt, match="ended at once"):
            send(number)
    assert asked == [number]


def test_where_nothing_is_under_way_the_first_signal_raises() -> None:
    with stop_on_signals(), pytest.raises(RunEndedError, match="run it again") as caught:
        send(signal.SIGTERM)
    assert caught.value.signal == signal.SIGTERM


def test_a_handler_that_somebody_puts_in_their_place_comes_back_when_the_run_is_over() -> None:
    def others(_number: int, _frame: object) -> None:
        raise AssertionError

    before, asked = signal.getsignal(signal.SIGTERM), list[int]()
    try:
        with stop_on_signals(asked.append):
            with handlers_kept():
                signal.signal(signal.SIGTERM, others)
            send(signal.SIGTERM)
        assert asked == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is others
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_ray_hears_while_it_starts_ends_the_run() -> None:
    with stop_on_signals(), pytest.raises(RunEndedError), handlers_kept():
        raise SystemExit(signal.SIGTERM)  # what Ray's own handler does
    with pytest.raises(SystemExit), handlers_kept():
        raise SystemExit(3)


def test_handlers_that_stood_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), stop_on_signals(lambda _number: None):
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_thread_leaves_the_handlers_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def run() -> None:
        with stop_on_signals(lambda _number: None):
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == before


class Interrupted(Step):
    """Gets a signal while it works."""

    at: Unsigned[RuntimeParameter[int]] = -1
    when_unloaded: Unsigned[RuntimeParameter[bool]] = False
    signal: Unsigned[RuntimeParameter[int]] = 0
    when_loaded: Unsigned[RuntimeParameter[bool]] = False

    def load(self) -> None:
        super().load()
        if self.when_loaded:
            send(self.signal)
            send(self.signal)

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    def process(self, inputs: StepInput) -> StepOutput:
        if any(row["n"] == self.at for row in inputs):
            send(self.signal)
        yield inputs

    def unload(self) -> None:
        if self.when_unloaded:
            send(self.signal)


def pipeline(rows: int = 20) -> Pipeline:
    with Pipeline(name="interrupted") as made:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(rows)])
        load >> Interrupted(name="work", input_batch_size=2)
    return made


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_a_batch_ends_the_run_after_that_batch_and_keeps_it(number: signal.Signals) -> None:
    parameters = {"work": {"at": 7, "signal": int(number)}}
    with pytest.raises(RunInterruptedError, match="run it again to resume") as caught:
        pipeline().run(parameters, engine="inline")
    assert caught.value.signal == number
    step = pipeline().run(engine="inline").report.steps["work"]
    assert step.decision == "resume"
    assert 8 <= step.rows_reused < 20
    assert step.rows_reused + step.rows_computed == 20


def test_a_signal_that_comes_when_all_rows_are_stored_changes_nothing() -> None:
    done = pipeline(2).run({"work": {"when_unloaded": True, "signal": int(signal.SIGINT)}}, engine="inline")
    assert len(done["default"]["train"]) == 2
    assert done.report.status == "complete"


@pytest.mark.parametrize("number", SIGNALS)
def test_two_signals_end_a_step_that_loads_and_are_no_failure_of_it(number: signal.Signals) -> None:
    with pytest.raises(RunEndedError, match="ended at once") as caught:
        pipeline().run({"work": {"when_loaded": True, "signal": int(number)}}, engine="inline")
    assert caught.value.signal == number


def test_with_use_cache_false_it_is_said_that_this_would_not_resume() -> None:
    parameters = {"work": {"at": 7, "signal": int(signal.SIGINT)}}
    with pytest.raises(RunInterruptedError, match="Leave use_cache=False out"):
        pipeline().run(parameters, use_cache=False, engine="inline")
    assert pipeline().run(engine="inline").report.steps["work"].rows_reused >= 8


class Watched(Step):
    """Says which processes work, and which of them unloaded."""

    folder: Unsigned[str]
    pause: Unsigned[float] = 0.0

    def load(self) -> None:
        super().load()
        Path(self.folder, f"{os.getpid()}").touch()

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(self.pause if inputs[0]["n"] else 0)
        yield inputs

    def unload(self) -> None:
        Path(self.folder, f"{os.getpid()}-unloaded").touch()
        super().unload()


def watched(folder: Path, pause: float, engine: Engine, listen: Callable[[RunEvent], None]) -> None:
    folder.mkdir()
    with Pipeline(name="watched") as made:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(200)], batch_size=1)
        load >> Watched(name="work", input_batch_size=1, folder=str(folder), pause=pause)
    run(RunRequest("watched", made.graph, engine=engine, listeners=(listen,)))


def assert_nothing_is_left(root: Path, folder: Path, engine: Engine) -> None:
    assert not list(root.rglob(".tmp-*"))
    (beat,) = root.glob("runs/*/heartbeat.json")
    assert json.loads(beat.read_bytes())["status"] == "ended"
    if engine == "ray":
        working = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
        assert working
        wait_until(lambda: not any(map(psutil.pid_exists, working)), 20)


def test_a_signal_lets_calls_end_and_replicas_unload(
    engine: Engine, tmp_path: Path, cache_root: Path
) -> None:
    told: list[RunEvent] = []

    def listen(event: RunEvent) -> None:
        told.append(event)
        stopping = any(isinstance(each, RunStopping) for each in told)
        if isinstance(event, CallDone) and event.step == "work" and not stopping:
            send(signal.SIGINT)
            wait_until(lambda: any(isinstance(each, RunStopping) for each in told))

    with pytest.raises(RunInterruptedError, match="run it again to resume"):
        watched(tmp_path / "at", 0.05, engine, listen)
    assert list((tmp_path / "at").glob("*-unloaded"))
    assert_nothing_is_left(cache_root, tmp_path / "at", engine)


def test_two_signals_end_calls_that_take_minutes_and_leave_nothing(
    local_ray: None, tmp_path: Path, cache_root: Path
) -> None:
    told: list[RunEvent] = []

    def listen(event: RunEvent) -> None:
        told.append(event)
        if isinstance(event, CallDone) and event.step == "work":  # the second one takes long
            send(signal.SIGTERM)
            wait_until(lambda: any(isinstance(each, RunStopping) for each in told))
            send(signal.SIGTERM)

    with pytest.raises(RunEndedError, match="ended at once"):
        watched(tmp_path / "at", 300.0, "ray", listen)
    (stopping,) = [event for event in told if isinstance(event, RunStopping)]
    assert dict(stopping.calls).get("work", 0) <= 1
    assert not list((tmp_path / "at").glob("*-unloaded"))
    assert_nothing_is_left(cache_root, tmp_path / "at", "ray")


@pytest.mark.parametrize("kind", [RunStarted, ReplicaUp])
def test_a_signal_at_any_time_leaves_nothing(kind: type, tmp_path: Path, cache_root: Path) -> None:
    def listen(event: RunEvent) -> None:
        if isinstance(event, kind):
            send(signal.SIGINT)

    with pytest.raises((RunInterruptedError, RunEndedError), match="run it again"):
        watched(tmp_path / "at", 0.0, "inline", listen)
    assert_nothing_is_left(cache_root, tmp_path / "at", "inline")


def test_a_signal_while_nodes_are_asked_ends_the_run_at_once(
    tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_executor: InlineExecutor, _steps: object) -> bool:
        send(signal.SIGTERM)
        raise AssertionError("it is left at once")

    monkeypatch.setattr(InlineExecutor, "nodes", ask)
    with pytest.raises(RunEndedError, match="nothing was being computed"):
        watched(tmp_path / "at", 0.0, "inline", lambda _event: None)
    assert_nothing_is_left(cache_root, tmp_path / "at", "inline")


def test_a_manifest_that_is_about_to_be_written_is_written(tmp_path: Path, cache_root: Path) -> None:
    told: list[RunEvent] = []

    def listen(event: RunEvent) -> None:
        told.append(event)
        if isinstance(event, StepCommitting) and event.step == "load":
            send(signal.SIGINT)

    with pytest.raises(RunInterruptedError):
        watched(tmp_path / "at", 0.01, "inline", listen)
    assert StepFinished("load", 200) in told
    assert_nothing_is_left(cache_root, tmp_path / "at", "inline")
