"""A note stands for what the records of a run say, on the day of that run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distill_ray.cache.paths import FunctionId
from distill_ray.cache.records import RunRecord, StepRecord
from distill_ray.cache.use_notes import is_note, note_of

LOAD = StepRecord(FunctionId("Load", "a" * 64), "1" * 64, ())
ASK = StepRecord(FunctionId("Ask", "b" * 64), "2" * 64, ("load",))
JUDGE = StepRecord(FunctionId("Judge", "c" * 64), "3" * 64, ("load",))
RUN = RunRecord("answers", "20260131T101500-0a1b2c3d", {"load": LOAD, "judge": JUDGE, "ask": ASK})


def test_it_stands_beside_the_parts_of_the_first_leaf_by_name() -> None:
    note = note_of(RUN)
    assert note
    assert note.leaf == ASK.function
    assert note.path.startswith(f"{ASK.function.parts_folder}/_used.20260131.")
    assert is_note(note.name)
    assert not is_note("20260131T101500-0a1b2c3d-000-00001.parquet")


def test_runs_of_one_day_that_had_the_same_steps_have_one_note() -> None:
    turned = dict(reversed(list(RUN.steps.items())))
    assert note_of(RUN) == note_of(replace(RUN, run="20260131T235959-ffffffff", steps=turned))


@pytest.mark.parametrize(
    "other",
    [
        replace(RUN, run="20260201T000000-0a1b2c3d"),
        replace(RUN, pipeline="answer"),
        replace(RUN, steps={**RUN.steps, "load": replace(LOAD, output_key="4" * 64)}),
        replace(RUN, steps={"load": LOAD, "ask": ASK, "judged": JUDGE}),
        replace(RUN, steps={"load": LOAD, "ask": ASK}),
    ],
)
def test_another_day_pipeline_or_step_has_another_note(other: RunRecord) -> None:
    assert note_of(other) != note_of(RUN)


@pytest.mark.parametrize(
    "changed",
    [
        {"run": 7},
        {"steps": {}},
        {"steps": {"a": replace(LOAD, predecessors=("a",))}},
        {"steps": {"a": replace(LOAD, function=FunctionId("Load", 7))}},  # type: ignore[arg-type]
    ],
)
def test_a_damaged_record_has_none(changed: dict[str, Any]) -> None:
    assert note_of(replace(RUN, **changed)) is None
    assert note_of(None) is None
