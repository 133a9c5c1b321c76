"""The record of a run, through real runs on the inline engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import StepError
from distill_ray.events import RowsFailed, RunRepaired, RunUnguarded, StepAwaited
from distill_ray.observe.report import FAILURES, RunReport, StepReport
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from distill_ray.types import RuntimeParameter
from tests.observe.events_of_a_run import loading, started, working

FIELDS = [
    "decision", "reason", "class_name", "function", "output_key", "rows_in", "rows_out", "rows_reused",
    "rows_computed", "batches_computed", "rows_failed", "rows_retried", "rows_checked", "rows_differing",
    "replicas", "replicas_lost", "seconds", "input_tokens", "output_tokens", "failures", "waited_for",
    "divergent",
]  # fmt: skip


class Half(Step):
    """Keeps even numbers, and says that each cost tokens."""

    bad: RuntimeParameter[int] = -1
    more: RuntimeParameter[int] = 0

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    def process(self, inputs: StepInput) -> StepOutput:
        rows = []
        for row in inputs:
            if row["n"] == self.bad:
                raise ValueError(f"no {self.bad}")
            if row["n"] % 2 == 0:
                statistics = {"statistics_half": {"input_tokens": 3, "output_tokens": [2, 5]}}
                rows.append({"n": row["n"] + self.more, "distilabel_metadata": statistics})
        yield rows


def numbers(rows: int = 20) -> Pipeline:
    with Pipeline(name="numbers") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(rows)])
        load >> Half(name="half", input_batch_size=5)
    return pipeline


def run(pipeline: Pipeline, **parameters: Any) -> RunReport:
    return pipeline.run({"half": parameters}, engine="inline").report


def record(root: Path, report: RunReport | None = None) -> dict[str, Any]:
    """What is kept of a run, or of the only one."""
    folder = root / "runs" / report.run if report else next((root / "runs").iterdir())
    found: dict[str, Any] = json.loads((folder / "run.json").read_bytes())
    return found


def test_a_step_has_exactly_the_fields_that_are_promised() -> None:
    assert list(StepReport.model_fields) == FIELDS


def test_for_whom_a_step_waited_is_kept() -> None:
    report = RunReport()
    report.listen(started(loading(), working()))
    report.listen(StepAwaited("work", "run r0 on host h, pid 7: 3 rows of step 'w'"))
    report.listen(StepAwaited("work", ""))
    report.listen(RunUnguarded("others may compute it too"))
    assert report.steps["load"].waited_for == ""
    assert report.steps["work"].waited_for == "run r0 on host h, pid 7: 3 rows of step 'w'"
    assert report.unguarded == "others may compute it too"


def test_so_many_failures_are_told_and_then_how_many_more_there_were() -> None:
    report = RunReport()
    report.listen(started(loading(), working()))
    failed = [RowsFailed("work", row, 1, "no") for row in range(FAILURES + 1_200)]
    for event in failed[:FAILURES]:
        report.listen(event)
    assert report.steps["work"].failures == [f"input row {row}: no" for row in range(FAILURES)]
    for event in failed[FAILURES : FAILURES + 700]:
        report.listen(event)
    report.listen(RunRepaired((loading(), working())))
    for event in failed[FAILURES + 700 :]:
        report.listen(event)
    failures = report.steps["work"].failures
    assert len(failures) == FAILURES + 1
    assert failures[-2:] == [f"input row {FAILURES - 1}: no", "and 1,200 more"]
    assert report.steps["load"].failures == []


def test_what_was_computed_is_counted() -> None:
    report = run(numbers())
    assert report.status == "complete"
    load, half = report.steps["load"], report.steps["half"]
    assert (load.decision, load.rows_in, load.rows_out, load.rows_computed) == ("compute", 0, 20, 20)
    assert (half.rows_in, half.rows_out, half.rows_reused, half.rows_computed) == (20, 10, 0, 10)
    assert (half.batches_computed, half.replicas) == (4, 1)
    assert (half.input_tokens, half.output_tokens) == (30, 70)
    assert 0 < half.seconds < report.seconds
    assert half.failures == []


def test_tokens_that_are_no_numbers_count_as_none() -> None:
    rows = [
        {"distilabel_metadata": {"statistics_load": {"input_tokens": "many", "output_tokens": [1, None]}}}
    ]
    with Pipeline(name="odd") as pipeline:
        LoadDataFromDicts(name="load", data=rows)
    load = pipeline.run(engine="inline").report.steps["load"]
    assert (load.input_tokens, load.output_tokens) == (0, 1)


def test_a_hit_reuses_everything() -> None:
    run(numbers())
    report = run(numbers())
    load, half = report.steps["load"], report.steps["half"]
    assert (load.decision, load.rows_out, load.rows_reused) == ("not needed", 0, 0)
    assert (half.decision, half.rows_out, half.rows_reused, half.rows_computed) == ("hit", 10, 10, 0)
    assert (half.replicas, half.seconds, half.input_tokens) == (0, 0, 0)
    assert half.reason


def test_a_failure_is_recorded_and_what_went_before_is_reused(cache_root: Path) -> None:
    with pytest.raises(StepError):
        run(numbers(), bad=12)
    kept = record(cache_root)
    assert kept["status"] == "failed"
    assert "Step 'half', input rows 10 to 14" in kept["error"]
    assert kept["steps"]["half"]["failures"] == ["process() raised ValueError: no 12"]


def test_a_resumed_step_counts_what_was_reused_apart() -> None:
    run(numbers(20))
    report = run(numbers(30))
    half = report.steps["half"]
    assert (half.decision, half.rows_in, half.rows_out) == ("resume", 30, 15)
    assert (half.rows_reused, half.rows_computed, half.batches_computed) == (10, 5, 2)


def test_use_cache_false_says_so() -> None:
    run(numbers())
    report = numbers().run(use_cache=False, engine="inline").report
    assert report.steps["half"].decision == "forced"
    assert report.steps["half"].reason == "run(use_cache=False)"


def test_the_plan_uses_the_reports_words() -> None:
    for parameters in ({}, {}, {"more": 1}):
        planned = {s.name: (s.decision, s.reason) for s in numbers().plan({"half": parameters}).steps}
        report = run(numbers(), **parameters)
        assert {name: (step.decision, step.reason) for name, step in report.steps.items()} == planned


def test_the_record_and_the_events_are_kept_under_the_cache_root(cache_root: Path) -> None:
    report = run(numbers())
    assert RunReport.model_validate(record(cache_root, report)) == report
    lines = (cache_root / "runs" / report.run / "events-0001.jsonl").read_bytes().splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunFinished"
    assert kinds.count("ReplicaUp") == kinds.count("StepFinished") == 2
    assert "PartWritten" in kinds
