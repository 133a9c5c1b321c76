"""A user's project that jobs are made of: a script, a package beside it, a file of data."""

from __future__ import annotations

import json
from pathlib import Path

ROWS = 200

STEPS = """\
import os
import time

from distill_ray.steps import RuntimeParameter, Step, StepInput, StepOutput
from distill_ray.types import Unsigned
from shop.words import shout


class Shout(Step):
    greeting: RuntimeParameter[str] = "hello"
    pause: Unsigned[RuntimeParameter[float]] = 0.0
    bad: Unsigned[RuntimeParameter[int]] = -1

    @property
    def inputs(self):
        return ["n"]

    @property
    def outputs(self):
        return ["shouted"]

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            with open(os.environ["SEEN"] + "-" + self.name, "a") as file:
                file.write(f"{row['n']}\\n")
            if row["n"] == self.bad:
                raise ValueError(f"row {row['n']} is bad")
            time.sleep(self.pause)
            row["shouted"] = shout(f"{self.greeting} {row['n']}")
        yield inputs
"""

SCRIPT = """\
import os

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromFileSystem, Step, StepInput, StepOutput
from shop.steps import Shout

MARK = "?"


class Mark(Step):
    @property
    def inputs(self):
        return ["shouted"]

    @property
    def outputs(self):
        return ["marked"]

    def process(self, inputs: StepInput) -> StepOutput:
        print("a step prints")
        for row in inputs:
            row["marked"] = row["shouted"] + MARK
        yield inputs


with Pipeline(name="shop") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files="numbers.jsonl")
    shout = Shout(name="shout", input_batch_size=2)
    load >> shout >> Mark(name="mark")
    if os.environ.get("TWO_BRANCHES"):
        load >> Shout(name="stuck", input_batch_size=1, greeting="stuck")

if __name__ == "__main__":
    print(pipeline.run(use_cache=True)["default"]["train"].to_list()[-1])
"""


def write_project(folder: Path) -> Path:
    """Write it down, and return its folder."""
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "words.py").write_text('def shout(text):\n    return text.upper() + "!"\n')
    (folder / "shop" / "steps.py").write_text(STEPS)
    (folder / "pipeline.py").write_text(SCRIPT)
    (folder / "numbers.jsonl").write_text("".join(f"{json.dumps({'n': n})}\n" for n in range(ROWS)))
    return folder
