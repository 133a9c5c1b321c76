"""A user's script, started with python and with distill-ray, on real actors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.acceptance.conftest import Shell

BESIDE = """\
def shout(text):
    return text.upper() + "!"
"""

SCRIPT = """\
from beside import shout

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput

MARK = "?"


class Shout(Step):
    @property
    def inputs(self):
        return ["word"]

    @property
    def outputs(self):
        return ["shouted"]

    def process(self, inputs: StepInput) -> StepOutput:
        print("a step prints")
        for row in inputs:
            row["shouted"] = shout(row["word"]) + MARK
        yield inputs


print("the script prints")
with Pipeline(name="shouting") as pipeline:
    load = LoadDataFromDicts(name="load", data=[{"word": "a"}, {"word": "b"}])
    load >> Shout(name="shout")

if __name__ == "__main__":
    print(pipeline.run()["default"]["train"].to_list())
"""


def write(folder: Path) -> Path:
    (folder / "scripts").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "scripts" / "beside.py").write_text(BESIDE)
    path = folder / "scripts" / "shouting.py"
    path.write_text(SCRIPT)
    return path


def test_a_class_in_main_and_a_module_beside_it_work_on_the_actors(shell: Shell, tmp_path: Path) -> None:
    script = write(tmp_path)
    ran = shell.run(sys.executable, str(script), cwd=tmp_path / "elsewhere")
    assert ran.returncode == 0, ran.stderr
    assert "[{'word': 'a', 'shouted': 'A!?'}, {'word': 'b', 'shouted': 'B!?'}]" in ran.stdout

    # However the script is started, it is the same pipeline.
    planned = shell.distill_ray("plan", str(script), "--json", cwd=tmp_path / "elsewhere")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["complete"]


def test_a_script_run_by_the_command_works_on_the_actors(shell: Shell, tmp_path: Path) -> None:
    script = write(tmp_path)
    ran = shell.distill_ray("run", str(script), "--json", cwd=tmp_path / "elsewhere")
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    assert record["steps"]["shout"]["rows_computed"] == 2
    assert record["steps"]["shout"]["replicas"] == 1
    assert "the script prints" in ran.stderr

    again = shell.run(sys.executable, str(script))
    assert again.returncode == 0, again.stderr
    assert "[{'word': 'a', 'shouted': 'A!?'}, {'word': 'b', 'shouted': 'B!?'}]" in again.stdout
    assert "complete hit" in again.stderr
