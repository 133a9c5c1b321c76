"""A plan as a table and as a record."""

from __future__ import annotations

from dataclasses import replace

from distill_ray.observe.plan_table import plan_record, plan_table
from distill_ray.pipeline import Pipeline
from distill_ray.steps import KeepColumns, LoadDataFromDicts


def pipeline(rows: int = 3) -> Pipeline:
    with Pipeline(name="p") as made:
        LoadDataFromDicts(name="load", data=[{"n": n} for n in range(rows)]) >> KeepColumns(
            name="keep", columns=["n"]
        )
    return made


def test_the_table_has_a_line_for_each_step_and_one_for_what_it_comes_to() -> None:
    plan = pipeline().plan()
    assert plan_table(plan).splitlines() == [
        "step  decision  rows known  to compute  reason",
        f"load  compute            0           ?  {plan['load'].reason}",
        f"keep  compute            0           ?  {plan['keep'].reason}",
        "",
        "A run would work on 2 of 2 steps: load, keep.",
    ]


def test_a_complete_hit_computes_nothing() -> None:
    pipeline(1200).run(engine="inline")
    lines = plan_table(pipeline(1200).plan()).splitlines()
    assert lines[2].split()[:3] == ["keep", "hit", "1,200"]
    assert lines[-1] == "A run would compute nothing: the output is stored."


def test_rows_to_compute_are_told_where_the_input_is_known() -> None:
    pipeline(1200).run(engine="inline")
    with Pipeline(name="p") as changed:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(1200)])
        load >> KeepColumns(name="keep", columns=["n"], output_mappings={"n": "m"})
    lines = plan_table(changed.plan()).splitlines()
    assert lines[1].split()[:4] == ["load", "hit", "1,200", "0"]
    assert lines[2].split()[:4] == ["keep", "compute", "0", "1,200"]
    assert plan_record(changed.plan())["steps"]["keep"]["rows_to_compute"] == 1200


def test_of_a_resumed_step_they_are_told_as_a_bound() -> None:
    pipeline(1200).run(engine="inline")
    plan = pipeline(1200).plan()
    resumed = replace(plan["keep"], decision="resume", rows_known=900, input_rows=1200)
    lines = plan_table(replace(plan, steps=(plan["load"], resumed))).splitlines()
    assert lines[2].split()[:5] == ["keep", "resume", "900", "<=", "1,200"]


def test_the_record_holds_signatures_too() -> None:
    plan = pipeline().plan()
    record = plan_record(plan)
    assert record["signature"] == pipeline().signature
    assert record["aggregated_steps_signature"] == pipeline().aggregated_steps_signature
    assert record["complete"] is False
    assert set(record["steps"]["keep"]) == {
        "decision", "reason", "reasons", "rows_known", "rows_to_compute", "signature", "output_key",
    }  # fmt: skip
    assert record["steps"]["keep"]["reasons"] == [{"kind": "first run", "text": "first run in this pipeline"}]
