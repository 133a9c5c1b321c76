"""Scripts of users, and the command line run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PIPELINE = """\
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, RuntimeParameter, Step, StepInput, StepOutput


class Double(Step):
    factor: RuntimeParameter[int] = 2
    bad: RuntimeParameter[int | None] = None
    title: RuntimeParameter[str] = "x"
    options: RuntimeParameter[dict] = {"a": 1, "b": {"c": 2}}

    @property
    def inputs(self):
        return ["n"]

    @property
    def outputs(self):
        return ["m"]

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            if row["n"] == self.bad:
                raise ValueError(f"{self.bad} is bad")
            row["m"] = row["n"] * self.factor
        yield inputs


with Pipeline(name="doubling") as pipeline:
    load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(20)])
    load >> Double(name="double", input_batch_size=5)
"""


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Put back what a script changes, as it may: the command has the process to itself."""
    path, argv, modules = list(sys.path), list(sys.argv), set(sys.modules)
    yield
    sys.path[:], sys.argv[:] = path, argv
    for name in set(sys.modules) - modules:
        if "cli_script" in name:
            del sys.modules[name]


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    """Write a script, by default one with a pipeline."""

    def write(text: str = PIPELINE, name: str = "cli_script.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write
