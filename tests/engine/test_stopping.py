"""What signals do to a run."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from distill_ray.engine.stopping import SIGNALS, stop_on_signals
from distill_ray.errors import RunInterruptedError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, RuntimeParameter, Step, StepInput, StepOutput
from distill_ray.types import Unsigned


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_the_second_raises(number: int) -> None:
    asked: list[int] = []
    with stop_on_signals(asked.append):
        send(number)
        assert asked == [number]
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert asked == [number]


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
