"""Events as a run would emit them, and a clock that stands until it is told to go."""

from __future__ import annotations

from distill_ray.events import CallDone, RunStarted, StepAdvanced, StepDecided


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def started(*steps: StepDecided) -> RunStarted:
    return RunStarted(run="r1", pipeline="p", cache="/root", steps=steps)


def loading(decision: str = "compute", rows_known: int = 0) -> StepDecided:
    return StepDecided("load", decision, "nothing is stored", rows_known)


def working(decision: str = "compute", rows_known: int = 0, replicas: int = 2) -> StepDecided:
    return StepDecided("work", decision, "nothing is stored", rows_known, ("load",), replicas)


def advanced(step: str, rows_in: int, rows_out: int, reused: int = 0) -> StepAdvanced:
    computed = rows_out - reused
    return StepAdvanced(
        step,
        rows_in,
        rows_out,
        reused,
        computed,
        -(-computed // 10),
        seconds=computed / 10,
        input_tokens=7,
        output_tokens=9,
    )


def call(step: str, replica: int, seconds: float = 0.5, lag: float = 0.0) -> CallDone:
    return CallDone(step, replica, "compute", 1, 10, 10, seconds, waited=0.1, lag=lag)
