"""Why a step would run, on real pipelines: a script is run, edited and explained."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cli.main import main
from tests.cli.project import Project

Capture = pytest.CaptureFixture[str]

SCRIPT = """\
import hashlib
from pathlib import Path
from typing import Any

from distill_ray.models import LLM
from distill_ray.pipeline import Pipeline
from distill_ray.steps import GlobalStep, LoadDataFromDicts, LoadDataFromFileSystem, RuntimeParameter
from distill_ray.steps import Step, StepInput, StepOutput, Unsigned
from distill_ray.steps.tasks import TextGeneration

LIMIT = 3


def helper(number):
    return number * LIMIT


class Base(Step):
    def more(self, number):
        return number + 1


class Measure(Base):
    options: RuntimeParameter[dict] = {"a": 1, "b": {"c": 2}}

    @property
    def inputs(self):
        return ["n"]

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            row["m"] = helper(self.more(row["n"]))
        yield inputs


class Sort(GlobalStep):
    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs[::-1]


class Label(Step):
    row_wise = True

    @property
    def inputs(self):
        return ["n"]

    @property
    def outputs(self):
        return ["label"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "label": f"number {row['n']}"} for row in inputs]


class Echo(LLM):
    weights: Unsigned[str] = "WEIGHTS"

    @property
    def model_name(self):
        return "echo"

    def signed_state(self) -> dict[str, Any]:
        return {"sha256": hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()}

    def generate(self, inputs, num_generations=1, temperature=1.0):
        tokens = {"input_tokens": [3] * num_generations, "output_tokens": [2] * num_generations}
        return [
            {"generations": [chat[-1]["content"]] * num_generations, "statistics": tokens,
             "finish_reasons": ["stop"] * num_generations}
            for chat in inputs
        ]


with Pipeline(name="explained") as pipeline:
    load = LoadDataFromDicts(
        name="load", data=[{"n": n, "instruction": f"say {n}", "other": "x"} for n in range(40)]
    )
    files = LoadDataFromFileSystem(name="files", data_files="FILES")
    measure = Measure(name="measure", input_batch_size=10)
    sort = Sort(name="sort")
    ask = TextGeneration(name="ask", llm=Echo(generation_kwargs={"temperature": 0.7}), input_batch_size=10)
    load >> measure >> sort
    load >> ask
    load >> Label(name="label")
    files >> Measure(name="measure_files", input_batch_size=10)
"""

Explained = dict[str, Any]


class ExplainedProject(Project):
    """A project with rows and weights, and what is said of it."""

    def __init__(self, folder: Path, capture: Capture) -> None:
        self.weights = folder / "weights.bin"
        self.weights.write_text("1")
        self.rows = folder / "rows.jsonl"
        self.write_rows({"n": n, "t": "x"} for n in range(30))
        text = SCRIPT.replace("WEIGHTS", str(self.weights)).replace("FILES", str(self.rows))
        super().__init__(folder, text, capture)

    def write_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        self.rows.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def explain(self, *arguments: str) -> dict[str, Explained]:
        """What is said of each step."""
        found: dict[str, Explained] = self.command("explain", "SCRIPT", *arguments)["steps"]
        return found

    def reasons(self, step: str, *arguments: str) -> list[str]:
        """The reasons of one step, in words: as explained, and the same in the plan."""
        explained = self.explain(*arguments)[step]
        planned = self.command("plan", "SCRIPT", *arguments)["steps"][step]
        told = [f"{reason['kind']}: {reason['text']}" for reason in explained["reasons"]]
        assert told[: len(planned["reasons"])] == [f"{r['kind']}: {r['text']}" for r in planned["reasons"]]
        return told


@pytest.fixture
def project(tmp_path: Path, capfd: Capture) -> ExplainedProject:
    return ExplainedProject(tmp_path, capfd)


@pytest.fixture
def ran(project: ExplainedProject) -> ExplainedProject:
    """The same, after a run."""
    project.run()
    return project


def test_nothing_is_known_before_the_first_run(project: ExplainedProject) -> None:
    explained = project.explain()
    assert {step["decision"] for step in explained.values()} == {"compute"}
    assert explained["measure"]["reasons"] == [{"kind": "first run", "text": "first run in this pipeline"}]
    assert explained["measure"]["reuse"]["rows"] == 0
    assert explained["measure"]["reuse"]["input_rows_to_compute"] == 40


def test_a_hit_needs_no_reason_and_tells_what_it_cost(ran: ExplainedProject) -> None:
    explained = ran.explain()
    for name in ("sort", "ask", "measure_files"):
        assert (explained[name]["decision"], explained[name]["reasons"]) == ("hit", [])
        assert explained[name]["reuse"]["certainty"] == "exact"
        assert explained[name]["reuse"]["input_rows_to_compute"] == 0
        assert explained[name]["reuse"]["seconds"] > 0
    assert explained["ask"]["reuse"]["rows"] == 40


def test_a_parameter_inside_a_dict_is_named_by_its_path(ran: ExplainedProject) -> None:
    assert ran.reasons("measure", "--param", "measure.options.b.c=5") == ["config: options.b.c: 2 -> 5"]


def test_a_parameter_of_a_nested_model_is_named_by_its_path(ran: ExplainedProject) -> None:
    ran.edit('"temperature": 0.7', '"temperature": 0.8')
    changed = {
        reason["text"]
        for step in ran.explain("ask").values()
        for reason in step["reasons"]
        if reason["kind"] == "config"
    }
    assert changed == {"llm.generation_kwargs.temperature: 0.7 -> 0.8"}


def test_another_mapping_is_a_parameter_too(ran: ExplainedProject) -> None:
    ran.edit('Measure(name="measure",', 'Measure(name="measure", output_mappings={"m": "k"},')
    assert ran.reasons("measure") == ['config: output_mappings.m: not set -> "k"']


def test_a_constant_of_a_helper_is_code(ran: ExplainedProject) -> None:
    ran.edit("LIMIT = 3", "LIMIT = 4")
    explained = ran.explain("measure")["measure"]
    assert [(reason["kind"], reason["text"]) for reason in explained["reasons"]] == [
        ("code", "helper: value of LIMIT")
    ]
    assert explained["code"][0]["diff"] == "helper: value of LIMIT changed"


def test_a_base_class_is_code_and_shown_as_a_diff(ran: ExplainedProject) -> None:
    ran.edit("return number + 1", "return number + 2")
    explained = ran.explain("measure")["measure"]
    assert [(reason["kind"], reason["text"]) for reason in explained["reasons"]] == [("code", "Base")]
    (piece,) = explained["code"]
    lines = piece["diff"].splitlines()
    assert "-        return number + 1" in lines
    assert "+        return number + 2" in lines


def test_comments_change_nothing(ran: ExplainedProject) -> None:
    ran.edit("    def more", "    # as before\n    def more")
    assert all(step["decision"] in ("hit", "not needed") for step in ran.explain().values())


def test_a_step_below_names_the_step_where_the_change_is_and_of_what_kind(ran: ExplainedProject) -> None:
    ran.edit("return number + 1", "return number + 2")
    assert ran.reasons("sort") == ["upstream: 'measure' (code)"]
    assert ran.reasons("measure_files") == ["code: Base"]


def test_rows_in_memory_are_compared_one_by_one(ran: ExplainedProject) -> None:
    ran.edit(
        'data=[{"n": n, "instruction": f"say {n}", "other": "x"} for n in range(40)]',
        'data=[{"n": n, "instruction": f"say {n}", "other": "y" if n in (12, 13) else "x"}'
        " for n in range(45) if n != 30]",
    )
    explained = ran.explain("load")["load"]
    assert [(reason["kind"], reason["text"]) for reason in explained["reasons"]] == [
        ("data", "40 -> 44 rows")
    ]
    data = explained["data"]
    counts = {name: data[name] for name in ("added", "deleted", "changed", "moved")}
    assert counts == {"added": 5, "deleted": 1, "changed": 2, "moved": 0}
    assert data["changed_rows"] == [[12, 12], [13, 13]]
    assert data["columns"] == {"other": 2}


def test_units_that_will_be_found_are_counted_before_the_run_with_what_they_cost(
    ran: ExplainedProject,
) -> None:
    ran.edit("for n in range(40)", "for n in range(45)")
    reuse = ran.explain("measure")["measure"]["reuse"]
    assert (reuse["certainty"], reuse["rows"]) == ("exact", 40)
    assert (reuse["input_rows"], reuse["input_rows_to_compute"]) == (45, 5)
    assert reuse["seconds"] > 0
    report = ran.run()["steps"]["measure"]
    assert (report["rows_reused"], report["rows_computed"]) == (40, 5)


def test_rows_of_a_row_wise_step_that_will_be_found_are_counted_before_the_run(ran: ExplainedProject) -> None:
    ran.edit('"other": "x"} for n in range(40)', '"other": "y"} for n in range(-3, 35)')
    reuse = ran.explain("label")["label"]["reuse"]
    assert (reuse["certainty"], reuse["rows"]) == ("exact", 35)
    assert (reuse["input_rows"], reuse["input_rows_to_compute"]) == (38, 3)
    assert ran.run()["steps"]["label"]["rows_computed"] == 3


def test_what_a_model_will_be_asked_is_known_before_the_run(ran: ExplainedProject) -> None:
    ran.edit("for n in range(40)", "for n in range(-4, 36)")
    ran.edit(
        'TextGeneration(name="ask",',
        'TextGeneration(name="ask", template="{{ instruction }}", use_system_prompt=False,',
    )
    reuse = ran.explain("ask")["ask/answer"]["reuse"]
    assert (reuse["certainty"], reuse["rows"], reuse["input_rows_to_compute"]) == ("exact", 36, 4)
    assert (reuse["input_tokens"], reuse["output_tokens"]) == (3 * 36, 2 * 36)
    assert ran.run()["steps"]["ask/answer"]["rows_computed"] == 4


def test_a_request_that_cannot_be_rendered_leaves_the_number_of_answers_open(ran: ExplainedProject) -> None:
    ran.edit(
        'TextGeneration(name="ask",', 'TextGeneration(name="ask", template="{{ instruction.nope.nope }}",'
    )
    reuse = ran.explain("ask")["ask/answer"]["reuse"]
    assert (reuse["certainty"], reuse["rows"]) == ("at most", 40)


def test_a_step_below_one_that_runs_can_only_be_told_what_is_stored_at_most(ran: ExplainedProject) -> None:
    ran.edit("return number + 1", "return number + 2")
    reuse = ran.explain("sort")["sort"]["reuse"]
    assert (reuse["certainty"], reuse["rows"]) == ("at most", 40)


def test_rows_of_files_are_compared_one_by_one(ran: ExplainedProject) -> None:
    ran.write_rows({"n": n, "t": "y" if n == 4 else "x"} for n in range(33))
    explained = ran.explain("files")["files"]
    (reason,) = explained["reasons"]
    assert reason["kind"] == "data"
    assert reason["text"].startswith("file 1 (")
    assert (explained["data"]["added"], explained["data"]["changed"]) == (3, 1)
    assert explained["data"]["columns"] == {"t": 1}


def test_more_files_are_counted(ran: ExplainedProject) -> None:
    (ran.folder / "more.jsonl").write_text('{"n": 1}\n')
    ran.edit(f'data_files="{ran.rows}"', f'data_files=["{ran.rows}", "{ran.folder}/more.jsonl"]')
    assert ran.reasons("files") == ["data: 1 -> 2 files"]


def test_other_weights_are_another_model(ran: ExplainedProject) -> None:
    ran.weights.write_text("2")
    kinds = [
        reason["kind"]
        for step in ran.explain("ask").values()
        for reason in step["reasons"]
        if "changes" in reason
    ]
    assert set(kinds) == {"model"}


def test_another_batch_size_is_a_parameter_and_named_by_the_steps_below(ran: ExplainedProject) -> None:
    ran.edit('name="measure", input_batch_size=10', 'name="measure", input_batch_size=8')
    assert ran.reasons("measure") == ["config: input_batch_size: 10 -> 8"]
    assert ran.reasons("sort") == ["upstream: 'measure' (config)"]


def test_a_forced_step_says_where_it_is_forced(ran: ExplainedProject) -> None:
    ran.edit('Measure(name="measure",', 'Measure(name="measure", use_cache=False,')
    explained = ran.explain()
    assert explained["measure"]["reasons"][0]["text"] == "use_cache=False on this step"
    assert explained["sort"]["reasons"] == [
        {"kind": "forced", "text": "'measure' above it is computed anew", "steps": ["measure"]}
    ]
    assert ran.reasons("load", "--no-cache") == ["forced: run(use_cache=False)"]


def test_an_output_that_was_removed_is_said_to_be(ran: ExplainedProject, cache_root: Path) -> None:
    for manifest in cache_root.glob("steps/Sort-*/outputs/*.json"):
        manifest.unlink()
    (reason,) = ran.reasons("sort")
    assert reason.startswith("removed: its output, which run ")


def test_a_run_that_did_not_finish_is_named(project: ExplainedProject) -> None:
    project.edit("yield inputs[::-1]", "raise ValueError('no')")
    project.run(code=1)
    (reason,) = project.reasons("sort")
    assert reason.startswith("unfinished: run ")


def test_rows_that_failed_are_said_to_be_tried_again(project: ExplainedProject) -> None:
    project.edit("f\"number {row['n']}\"", 'row["n"] // row["n"]')
    project.edit('Label(name="label")', 'Label(name="label", on_error="skip") >> Sort(name="last")')
    project.run()
    for step in ("label", "last"):
        (reason,) = project.reasons(step)
        assert reason.startswith("failed: rows that failed in run ")


def test_a_damaged_output_is_said_to_be(ran: ExplainedProject, cache_root: Path) -> None:
    for part in cache_root.glob("steps/Sort-*/parts/*.parquet"):
        part.unlink()
    assert ran.reasons("sort")[0].startswith("damaged: 1 of its 1 parts are gone or cut")


def test_after_a_failed_run_of_new_code_it_is_compared_with_the_last_that_finished(
    ran: ExplainedProject,
) -> None:
    ran.edit("yield inputs[::-1]", "raise ValueError('no')")
    ran.run(code=1)
    ran.edit("raise ValueError('no')", "yield inputs[::1]")
    explained = ran.explain("sort")["sort"]
    assert "-        yield inputs [ : : - 1 ]" in explained["code"][0]["diff"]


def test_a_step_with_another_name_in_the_same_place_is_still_known(ran: ExplainedProject) -> None:
    ran.edit('name="sort"', 'name="sorted"')
    ran.edit("yield inputs[::-1]", "yield inputs")
    assert ran.reasons("sorted") == ["code: Sort"]


def test_in_a_new_pipeline_a_step_is_compared_with_the_nearest_function_of_its_class(
    ran: ExplainedProject,
) -> None:
    ran.edit('Pipeline(name="explained")', 'Pipeline(name="another")')
    explained = ran.explain("measure", "--param", "measure.options.a=7")["measure"]
    assert [reason["kind"] for reason in explained["reasons"]] == ["first run", "config"]
    assert explained["reasons"][1]["text"] == "options.a: 1 -> 7"
    assert explained["compared_with"].startswith("the nearest function of class Measure on this root")


def test_what_the_fingerprint_cannot_see_is_said(ran: ExplainedProject) -> None:
    ran.edit("self.more(row", 'getattr(self, "more")(row')
    (text,) = ran.explain("measure")["measure"]["blind_spots"]
    assert "'getattr'" in text


def test_the_text_says_what_the_record_says(ran: ExplainedProject, capfd: Capture) -> None:
    ran.edit("return number + 1", "return number + 2")
    ran.edit("range(40)", "range(43)")
    capfd.readouterr()
    assert main(["explain", ran.script()]) == 0
    text = capfd.readouterr().out
    for line in (
        "load: compute",
        "  DATA: 40 -> 43 rows",
        "  rows: +3 of 40 rows",
        "measure: compute",
        "  CODE: Base",
        "  UPSTREAM: 'load' (data)",
        "    +        return number + 2",
        "  to reuse: 0 rows",
        "  to compute: 43 of 43 input rows",
        "  UPSTREAM: 'measure' (code), 'load' (data)",
    ):
        assert line in text.splitlines()


def test_a_step_that_is_not_there_is_code_2(project: ExplainedProject, capfd: Capture) -> None:
    assert main(["explain", project.script(), "nope"]) == 2
    assert "There is no step 'nope' in the pipeline: 'load', 'files'" in capfd.readouterr().err


def test_explaining_writes_nothing(ran: ExplainedProject, cache_root: Path) -> None:
    before = sorted(cache_root.rglob("*"))
    ran.edit("return number + 1", "return number + 2")
    ran.explain()
    assert sorted(cache_root.rglob("*")) == before
