"""Progress as plain timed lines."""

from __future__ import annotations

import io
import sys

import pytest

from distill_ray.events import (
    DamageFound,
    ReplicaUp,
    RunEvent,
    RunFinished,
    RunRepaired,
    RunStopping,
    RunUnguarded,
    StepAdvanced,
    StepAwaited,
    StepFailed,
    StepFinished,
)
from distill_ray.observe.lines import LineProgress
from tests.observe.events_of_a_run import Clock, advanced, loading, started, working


def said(*events: RunEvent) -> list[str]:
    """What is written for events that come at once, without the times."""
    stream = io.StringIO()
    progress = LineProgress(stream, Clock())
    for event in events:
        progress(event)
    return [line.partition("s] ")[2] for line in stream.getvalue().splitlines()]


def test_lines_carry_the_time_since_the_start() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    clock.wait(75.5)
    progress(started(loading()))
    assert stream.getvalue().startswith("[   75.5 s] pipeline 'p', cache /root, run r1\n")


def test_the_start_says_what_was_decided_and_why() -> None:
    assert said(started(loading(), working("resume", rows_known=5))) == [
        "pipeline 'p', cache /root, run r1",
        "load: compute (nothing is stored)",
        "work: resume (nothing is stored)",
    ]


def test_replicas_and_ends_have_a_line_of_their_own() -> None:
    lines = said(started(loading(), working()), ReplicaUp("work", 0), StepFinished("load", 1234))
    assert lines[-2:] == ["work: 1 of 2 replicas up", "load: finished, 1,234 rows"]


def test_a_step_that_goes_on_is_mentioned_now_and_then_only() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress(started(loading("hit", rows_known=4000), working()))
    progress(ReplicaUp("work", 0))
    for tick in range(1, 161):
        clock.wait(0.125)
        progress(advanced("work", tick, tick))
    lines = [line for line in stream.getvalue().splitlines() if "rows/s" in line]
    assert len(lines) == 4
    assert lines[0].endswith("work: 40 / 4,000 rows, 8.0 rows/s, 0 reused, 40 computed, 1 of 2 replicas up")


def test_lines_come_seldom_in_a_run_that_takes_long() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress(started(loading(), working()))
    for tick in range(24 * 3600):
        clock.wait(1)
        progress(advanced("work", tick, tick))
    assert stream.getvalue().count("rows/s") < 24 * 60 + 60


def test_a_step_that_another_run_computes_says_so_first_now_and_then_and_at_the_end_of_it() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress(started(loading(), working()))
    for tick in range(12):
        progress(StepAwaited("work", f"run r0 on host h, pid 7: {tick} rows of step 'w'"))
        progress(advanced("work", tick, tick, reused=tick))
        clock.wait(1)
    progress(StepAwaited("work", ""))
    lines = [line.partition("s] ")[2] for line in stream.getvalue().splitlines() if "wait" in line]
    assert lines == [
        "work: 0 rows, waits for run r0 on host h, pid 7: 0 rows of step 'w'",
        "work: 5 rows, waits for run r0 on host h, pid 7: 5 rows of step 'w'",
        "work: 10 rows, waits for run r0 on host h, pid 7: 10 rows of step 'w'",
        "work: waits for no other run any more",
    ]


def test_that_nothing_guards_a_run_is_said() -> None:
    assert said(started(loading()), RunUnguarded("others may compute it too"))[-1] == (
        "note: others may compute it too"
    )


def test_the_end_says_of_each_step_what_was_reused_and_what_computed() -> None:
    assert said(
        started(loading("hit", rows_known=40), working("resume", rows_known=15)),
        advanced("work", 40, 40, reused=15),
        StepFinished("work", 40),
        RunFinished("r1", "complete", 7.94),
    )[-3:] == [
        "load  hit: 40 rows reused, 0 computed",
        "work  resume: 15 rows reused, 25 computed in 3 batches, 2.5 s of work, 7 tokens read, 9 written",
        "pipeline 'p': complete, 55 rows reused, 25 computed (7.9 s)",
    ]


def test_rows_that_failed_or_were_compared_are_told() -> None:
    compared = {"rows_checked": 15, "rows_differing": 4}
    step, run = said(
        started(loading("hit", rows_known=40), working("resume", rows_known=15)),
        StepAdvanced("work", 40, 38, 15, 23, 3, rows_failed=2, rows_retried=3, seconds=2.5, **compared),
        StepFinished("work", 38),
        RunFinished("r1", "complete", 7.94),
    )[-2:]
    failed = "2 input rows failed, 3 rows tried again"
    assert step.endswith(f"2.5 s of work, {failed}, 4 of 15 verified rows differ")
    assert run.endswith("55 rows reused, 23 computed, 2 failed: the next run tries them again (7.9 s)")


def test_damage_that_is_met_on_the_way_is_said_and_the_work_before_it_counts() -> None:
    lines = said(
        started(loading("hit", rows_known=40), working()),
        advanced("work", 10, 10),
        DamageFound("The part x is damaged."),
        RunRepaired((loading(), working("resume", rows_known=10))),
        advanced("load", 0, 40),
        advanced("work", 40, 40, reused=10),
        StepFinished("load", 40),
        StepFinished("work", 40),
        RunFinished("r1", "complete", 7.94),
    )
    assert "note: The part x is damaged." in lines
    assert lines[-3].startswith("load  compute: 0 rows reused, 40 computed")
    assert lines[-2].startswith("work  resume: 10 rows reused, 40 computed")


def test_a_complete_hit_says_so_in_one_line() -> None:
    decided = started(loading("not needed"), working("hit", rows_known=20))
    assert said(decided, RunFinished("r1", "complete", 0.04)) == [
        "pipeline 'p': complete hit, 20 rows reused, nothing computed (0.0 s)"
    ]


def test_a_failure_and_what_was_not_finished_are_named() -> None:
    lines = said(
        started(loading(), working()),
        advanced("load", 0, 40),
        advanced("work", 10, 10),
        StepFailed("work", "process() raised ValueError: seven\nmore", (10, 20)),
        RunFinished("r1", "failed", 2.0, "Step 'work' ..."),
    )
    assert lines[3] == "work: failed: process() raised ValueError: seven"
    assert lines[-3].startswith("load  compute: 0 rows reused, 40 computed in 4 batches, 4.0 s of work")
    assert lines[-3].endswith("; not finished")
    assert lines[-2].endswith("; failed: process() raised ValueError: seven")
    assert lines[-1] == "pipeline 'p': failed, 0 rows reused, 50 computed (2.0 s)"


def test_a_stop_says_what_it_waits_for_and_how_to_hasten_it() -> None:
    lines = said(started(loading()), RunStopping(2), RunFinished("r1", "interrupted", 1.0))
    assert lines[2] == (
        "stopping: what is under way ends, what is finished is stored; once more ends at once"
    )
    assert lines[-1] == "pipeline 'p': stopped, 0 rows reused, 0 computed (1.0 s)"
    stopping = RunStopping(2, (("work", 3), ("load", 1)), 75.4)
    assert said(started(loading()), stopping)[2] == (
        "stopping: what is under way ends (calls: 3 of 'work', 1 of 'load', for 75 s now), what is finished "
        "is stored; once more ends at once, and the next run makes these calls again"
    )


def test_a_reader_who_went_away_does_not_end_the_run() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream)
    stream.close()
    progress(started(loading()))
    progress(RunFinished("r1", "complete", 1.0))


def test_a_process_without_standard_error_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    LineProgress()(started(loading()))
