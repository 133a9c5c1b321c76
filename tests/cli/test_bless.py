"""A refactored step goes on with what its old code computed, once its new code gave the same rows."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cli.main import main
from tests.cli.project import Project

SCRIPT = """\
import time

from distill_ray.models import LLM
from distill_ray.pipeline import Pipeline
from distill_ray.steps import GeneratorStep, GlobalStep, LoadDataFromDicts, RuntimeParameter, Step
from distill_ray.steps import StepInput, StepOutput
from distill_ray.types import GeneratorStepOutput
from distill_ray.steps.tasks import Task


def helper(number):
    return number * 3


class Measure(Step):
    factor: RuntimeParameter[int] = 1

    def process(self, inputs: StepInput) -> StepOutput:
        kept = []
        for row in inputs:
            if row["n"] % 7:
                kept.append({**row, "m": helper(row["n"]) * self.factor, "by": self.name})
        yield kept


class Measured(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Join(Step):
    def process(self, *inputs: StepInput) -> StepOutput:
        yield [{**one, "other": other["n"]} for one, other in zip(*inputs)]


class Sort(GlobalStep):
    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs[::-1]


def shout(text):
    return text.upper()


class Count(GeneratorStep):
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, 60, self.batch_size):
            yield [{"c": n} for n in range(start, start + self.batch_size)], start + self.batch_size >= 60


class Label(Step):
    row_wise = True

    @property
    def inputs(self):
        return ["n"]

    @property
    def outputs(self):
        return ["label"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "label": shout(f"number {row['n']}")} for row in inputs]


class Clock(LLM):
    @property
    def model_name(self):
        return "clock"

    def generate(self, inputs, num_generations=1, max_new_tokens=16):
        return [{"generations": [self.say(chat)] * num_generations}
                for chat in inputs]

    def say(self, chat):
        return f"it is {time.time_ns()}"


class Ask(Task):
    @property
    def inputs(self):
        return ["n"]

    @property
    def outputs(self):
        return ["answer"]

    def format_input(self, input):
        return [{"role": "user", "content": f"what time is {input['n']}?"}]

    def format_output(self, output, input):
        return {"answer": output[6:]}


with Pipeline(name="blessed") as pipeline:
    load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(95)], batch_size=20)
    measure = Measure(name="measure", input_batch_size=10)
    load >> measure >> Sort(name="sort")
    [load, LoadDataFromDicts(name="more", data=[{"n": -n} for n in range(95)])] >> Join(name="join")
    load >> Label(name="label", input_batch_size=10)
    Count(name="count", batch_size=10) >> Measured(name="after")
    load >> Ask(name="ask", llm=Clock(), input_batch_size=20)
"""

Capture = pytest.CaptureFixture[str]
HITS = {
    "load": "not needed",
    "more": "not needed",
    "measure": "not needed",
    "join": "hit",
    "sort": "hit",
    "count": "not needed",
    "after": "hit",
    "label": "hit",
    "ask/request": "not needed",
    "ask/answer": "not needed",
    "ask": "hit",
}


@pytest.fixture
def ran(tmp_path: Path, capfd: Capture) -> Project:
    project = Project(tmp_path, SCRIPT, capfd)
    project.run()
    return project


def bless(project: Project, step: str, *options: str, code: int = 0) -> Any:
    return project.command("cache", "bless", "SCRIPT", step, *options, code=code)


def test_a_refactoring_costs_nothing_once_it_is_blessed(ran: Project, cache_root: Path) -> None:
    ran.edit("return number * 3", "tripled = number + number + number\n    return tripled")
    assert ran.plan()["measure"] == "compute"
    (trial,) = bless(ran, "measure")["trials"]
    assert (trial["units"], trial["differences"]) == (10, [])
    assert json.loads((cache_root / "format.json").read_text())["aliases"] == {trial["new"]: trial["old"]}
    assert ran.plan() == HITS
    report = ran.run()
    assert sum(step["rows_computed"] for step in report["steps"].values()) == 0


def test_rows_that_come_later_are_computed_by_the_new_code_and_kept_beside_the_old(ran: Project) -> None:
    ran.edit("return number * 3", "return 3 * number")
    bless(ran, "measure")
    ran.edit("range(95)", "range(120)")
    report = ran.run()["steps"]["measure"]
    assert (report["rows_reused"], report["rows_computed"]) == (77, 25)
    assert all(decision != "compute" for decision in ran.plan().values())


def test_where_rows_differ_nothing_is_blessed(ran: Project, capfd: Capture) -> None:
    ran.edit("return number * 3", "return number * 3 if number < 50 else 0")
    record = bless(ran, "measure", code=2)
    assert "rows that were tried came out differently, the first in unit 5, row " in record["message"]
    assert "m: 150 -> 0" in record["message"] or "m: 153 -> 0" in str(record["message"])
    assert ran.plan()["measure"] == "compute"
    capfd.readouterr()
    assert main(["cache", "bless", ran.script(), "measure", "--samples", "2"]) == 2
    out, err = capfd.readouterr()
    assert "measure: changed code: helper" in out
    assert "2 units with 12 rows tried: 4 rows came out differently" in out
    assert "m: 270 -> 0" in out
    assert "To bless it nevertheless, give --yes." in err


def test_yes_blesses_in_spite_of_differences(ran: Project) -> None:
    ran.edit("return number * 3", "return number * 4")
    (trial,) = bless(ran, "measure", "--yes", "--samples", "3")["trials"]
    assert trial["units"] == 3
    assert len(trial["differences"]) == trial["rows"]
    assert ran.plan() == HITS


def test_rows_that_are_new_or_missing_are_named(ran: Project) -> None:
    ran.edit('if row["n"] % 7:', "if True:")
    record = bless(ran, "measure", code=2)
    assert "came out differently" in record["message"]


def test_the_blessing_of_a_blessing_leads_to_the_first_function(ran: Project, cache_root: Path) -> None:
    first = ran.command("plan", "SCRIPT")["steps"]["measure"]["signature"]
    for body in ("return 3 * number", "return number + 2 * number"):
        ran.edit(ran.text.split("def helper(number):\n    ")[1].split("\n")[0], body)
        bless(ran, "measure")
        ran.run()
    aliases = json.loads((cache_root / "format.json").read_text())["aliases"]
    assert set(aliases.values()) == {first}
    assert len(aliases) == 2


def test_a_global_step_is_tried_on_all_its_rows(ran: Project) -> None:
    ran.edit("yield inputs[::-1]", "yield list(reversed(inputs))")
    (trial,) = bless(ran, "sort")["trials"]
    assert (trial["units"], trial["rows"], trial["differences"]) == (1, 81, [])
    assert ran.plan() == HITS


def test_of_a_row_wise_step_single_rows_are_tried(ran: Project) -> None:
    ran.edit("return text.upper()", "shouted = text.upper()\n    return shouted")
    (trial,) = bless(ran, "label", "--samples", "7")["trials"]
    assert (trial["units"], trial["rows"], trial["differences"]) == (7, 7, [])
    assert ran.plan() == HITS


def test_after_the_blessing_of_a_row_wise_step_only_new_rows_are_computed(ran: Project) -> None:
    ran.edit("return text.upper()", "shouted = text.upper()\n    return shouted")
    bless(ran, "label")
    ran.edit("for n in range(95)], batch_size", "for n in range(-2, 95)], batch_size")
    ran.edit('[{"n": -n} for n in range(95)]', '[{"n": -n} for n in range(97)]')
    assert ran.run()["steps"]["label"]["rows_computed"] == 2


def test_the_parser_of_a_task_is_tried_on_stored_answers(ran: Project) -> None:
    ran.edit('return {"answer": output[6:]}', 'text = output\n        return {"answer": text[6:]}')
    trials = bless(ran, "ask")["trials"]
    assert [(trial["step"], trial["differences"]) for trial in trials] == [("ask/request", []), ("ask", [])]
    assert ran.plan() == HITS


def test_a_parser_that_reads_otherwise_is_not_blessed(ran: Project) -> None:
    ran.edit('return {"answer": output[6:]}', 'return {"answer": output[7:]}')
    assert "of 20 rows that were tried came out differently" in bless(ran, "ask", code=2)["message"]


def test_of_a_model_whose_answers_differ_by_themselves_it_is_said(ran: Project, capfd: Capture) -> None:
    ran.edit('return f"it is {time.time_ns()}"', 'now = time.time_ns()\n        return f"it is {now}"')
    capfd.readouterr()
    assert main(["cache", "bless", ran.script(), "ask", "--samples", "3"]) == 2
    out, _ = capfd.readouterr()
    assert "ask/answer: changed code: Clock" in out
    assert "3 units with 3 rows tried: 3 rows came out differently" in out
    assert "The step asks a model: its answers may differ although the code does the same." in out
    bless(ran, "ask", "--samples", "3", "--yes")
    assert ran.plan() == HITS


def test_of_a_generator_its_first_batches_are_tried(ran: Project) -> None:
    ran.edit('[{"c": n} for', "[dict(c=n) for")
    (trial,) = bless(ran, "count", "--samples", "2")["trials"]
    assert (trial["units"], trial["rows"], trial["differences"]) == (2, 20, [])
    assert ran.plan() == HITS


def test_a_generator_that_makes_other_rows_or_ends_too_early_is_not_blessed(ran: Project) -> None:
    ran.edit('[{"c": n} for', '[{"c": n + 1} for')
    assert "c: 0 -> 1" in bless(ran, "count", code=2)["message"]
    ran.edit('[{"c": n + 1} for', '[{"c": n} for')
    ran.edit("range(offset, 60, self.batch_size)", "range(offset, 30, self.batch_size)")
    assert "row 0: is missing" in bless(ran, "count", code=2)["message"]


def test_a_step_with_several_predecessors_is_tried_on_the_rows_of_all(ran: Project) -> None:
    ran.edit('{**one, "other": other["n"]}', 'dict(one, other=other["n"])')
    (trial,) = bless(ran, "join")["trials"]
    assert trial["differences"] == []
    assert ran.plan() == HITS


def test_a_new_parameter_belongs_to_the_code_that_reads_it(ran: Project) -> None:
    ran.edit("factor: RuntimeParameter[int] = 1", "factor: RuntimeParameter[int] = 1\n    plus: int = 0")
    ran.edit("* self.factor", "* self.factor + self.plus")
    bless(ran, "measure")
    assert ran.plan() == HITS


def test_another_parameter_cannot_be_blessed(ran: Project) -> None:
    ran.edit("return number * 3", "return 3 * number")
    record = bless(ran, "measure", "--param", "measure.factor=2", code=2)
    assert "more than its code changed: CONFIG: factor: 1 -> 2" in record["message"]


def test_new_code_that_raises_is_not_blessed_and_shown(ran: Project) -> None:
    ran.edit("return number * 3", "raise ValueError(number)")
    record = bless(ran, "measure", code=1)
    assert "process() raised ValueError" in record["message"]


def test_what_did_not_change_has_nothing_to_bless(ran: Project) -> None:
    ran.edit("return number * 3", "return 3 * number")
    record = bless(ran, "join", code=2)
    assert "there is nothing to bless" in record["message"]


def test_after_a_run_of_the_new_code_that_failed_the_old_one_is_still_known(ran: Project) -> None:
    ran.edit("return number * 3", "raise ValueError(number)")
    ran.run(code=1)
    ran.edit("raise ValueError(number)", "return 3 * number")
    bless(ran, "measure")
    assert ran.plan() == HITS


def test_an_output_that_is_gone_cannot_be_compared_with(ran: Project, cache_root: Path) -> None:
    for manifest in cache_root.glob("steps/LoadDataFromDicts-*/outputs/*.json"):
        manifest.unlink()
    ran.edit("return number * 3", "return 3 * number")
    record = bless(ran, "measure", code=2)
    assert "The output of step 'load' in the last run that finished is not stored any more" in str(
        record["message"]
    )


def test_trying_leaves_nothing_in_the_cache(ran: Project, cache_root: Path) -> None:
    before = sorted(cache_root.rglob("*"))
    ran.edit("return number * 3", "return number * 4")
    bless(ran, "measure", code=2)
    assert sorted(cache_root.rglob("*")) == before


@pytest.mark.parametrize(("answer", "blessed"), [("y", True), ("n", False)])
def test_on_a_terminal_it_asks(ran: Project, answer: str, blessed: bool) -> None:
    ran.edit("return number * 3", "return number * 4")
    command = [sys.executable, "-m", "distill_ray", "cache", "bless", ran.script(), "measure"]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "w") as keyboard:
        keyboard.write(f"{answer}\n")
        keyboard.flush()
        done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=60, check=False)
        os.close(theirs)
    assert "Bless 'measure' nevertheless?" in done.stdout
    assert (done.returncode, "Blessed: 'measure'" in done.stdout) == ((0, True) if blessed else (2, False))
    assert (ran.plan() == HITS) is blessed


ROUTED = """\
from typing import ClassVar

from distill_ray.pipeline import Pipeline, sample_n_steps
from distill_ray.steps import LoadDataFromDicts, Step


class Mark(Step):
    row_wise: ClassVar[bool] = True
    mark: str = ""

    def process(self, inputs):
        for row in inputs:
            yield [{"mark": self.mark}]


class Join(Step):
    def process(self, *inputs):
        yield [{"marks": len(rows)} for rows in zip(*inputs)]


with Pipeline(name="routed") as pipeline:
    load = LoadDataFromDicts(data=[{"n": n} for n in range(20)], batch_size=4)
    load >> sample_n_steps(2) >> [Mark(name=name, mark=name) for name in "abc"] >> Join(name="join")
"""


def test_rows_of_batches_that_were_routed_are_tried_one_by_one_but_not_together(
    tmp_path: Path, capfd: Capture
) -> None:
    project = Project(tmp_path, ROUTED, capfd)
    project.run()
    project.edit('{"mark": self.mark}', "dict(mark=self.mark)")
    bless(project, "a")
    assert project.plan()["a"] == "hit"
    project.edit("len(rows)", "sum(1 for _ in rows)")
    told = bless(project, "join", code=2)
    assert "'join' is given batches that are routed" in str(told)
