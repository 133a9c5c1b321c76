"""Where a run stands, from its events."""

from __future__ import annotations

import pytest

from distill_ray.events import ReplicaUp, RunStopping, StepAwaited, StepFailed, StepFinished
from distill_ray.observe.standing import RATE_SECONDS, RunStanding
from tests.observe.events_of_a_run import Clock, advanced, loading, started, working


def test_a_steps_total_is_known_once_its_predecessor_has_ended() -> None:
    run = RunStanding()
    run.listen(started(loading(), working()))
    run.listen(advanced("load", 0, 40))
    assert run.steps["work"].rows_total is None
    run.listen(StepFinished("load", 40))
    assert run.steps["work"].rows_total == 40


def test_a_steps_total_is_known_from_the_plan_where_its_predecessor_is_a_hit() -> None:
    run = RunStanding()
    run.listen(started(loading("hit", rows_known=40), working()))
    assert run.steps["work"].rows_total == 40
    assert run.steps["load"].state == "done"


def test_rows_done_are_rows_taken_or_of_a_generator_rows_given() -> None:
    run = RunStanding()
    run.listen(started(loading(), working()))
    run.listen(advanced("load", 0, 40))
    run.listen(advanced("work", 10, 30))
    assert run.steps["load"].rows_done == 40
    assert run.steps["work"].rows_done == 10


def test_a_step_waits_runs_and_is_done() -> None:
    run = RunStanding()
    run.listen(started(loading(), working()))
    states = [run.steps["work"].state]
    for event in (ReplicaUp("work", 0), ReplicaUp("work", 1), StepFinished("work", 3)):
        run.listen(event)
        states.append(run.steps["work"].state)
    assert states == ["waiting", "running", "running", "done"]
    assert run.steps["work"].replicas == 2


def test_a_step_waits_for_another_run_until_that_computes_it_no_more() -> None:
    run = RunStanding()
    run.listen(started(loading(), working()))
    run.listen(StepAwaited("work", "run r0"))
    assert run.steps["work"].holder == "run r0"
    run.listen(StepAwaited("work", ""))
    assert run.steps["work"].holder == ""


def test_a_failure_is_kept_with_its_step() -> None:
    run = RunStanding()
    run.listen(started(loading(), working()))
    run.listen(StepFailed("work", "ValueError: no", (0, 3)))
    assert (run.steps["work"].state, run.steps["work"].failure) == ("failed", "ValueError: no")


def test_the_rate_counts_computed_rows_of_the_last_seconds_only() -> None:
    clock = Clock()
    run = RunStanding(clock)
    run.listen(started(loading(), working()))
    run.listen(ReplicaUp("work", 0))
    assert run.steps["work"].rate(clock.now) is None
    clock.wait(10)
    run.listen(advanced("work", 500, 500, reused=400))
    assert run.steps["work"].rate(clock.now) == pytest.approx(10)
    for second in range(1, 2 * int(RATE_SECONDS)):
        clock.wait(1)
        run.listen(advanced("work", 500 + 2 * second, 500 + 2 * second, reused=400))
    assert run.steps["work"].rate(clock.now) == pytest.approx(2)


def test_the_rate_of_a_step_that_has_ended_stands() -> None:
    clock = Clock()
    run = RunStanding(clock)
    run.listen(started(loading(), working()))
    run.listen(ReplicaUp("load", 0))
    clock.wait(2)
    run.listen(advanced("load", 0, 40))
    run.listen(StepFinished("load", 40))
    clock.wait(60)
    assert run.steps["load"].rate(clock.now) == pytest.approx(20)


def test_a_run_in_which_nothing_runs_is_a_complete_hit() -> None:
    run = RunStanding()
    run.listen(started(loading("not needed"), working("hit", rows_known=5)))
    assert run.complete_hit
    run.listen(started(loading("hit", rows_known=5), working("resume", rows_known=3)))
    assert not run.complete_hit


def test_a_stop_is_noted() -> None:
    run = RunStanding()
    run.listen(started(loading()))
    run.listen(RunStopping(2))
    assert run.stopping
