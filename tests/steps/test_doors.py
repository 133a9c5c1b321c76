from __future__ import annotations

import subprocess
import sys

import pytest

from distill_ray import steps
from distill_ray.steps import tasks


def test_steps_has_these_names() -> None:
    assert sorted(steps.__all__) == [
        "GeneratorStep",
        "GeneratorStepOutput",
        "GlobalStep",
        "KeepColumns",
        "LoadDataFromDicts",
        "LoadDataFromFileSystem",
        "RuntimeParameter",
        "Step",
        "StepColumns",
        "StepInput",
        "StepOutput",
        "StepResources",
        "Unsigned",
        "step",
    ]
    assert all(getattr(steps, name) is not None for name in steps.__all__)
    assert dir(steps) == sorted(steps.__all__)


def test_tasks_has_these_names() -> None:
    assert tasks.__all__ == ["ChatGeneration", "Task", "TextGeneration"]
    assert all(getattr(tasks, name).__name__ == name for name in tasks.__all__)


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Keep'; it has .*KeepColumns"):
        _ = steps.Keep


def test_importing_steps_and_tasks_loads_nothing_heavy() -> None:
    script = (
        "import sys; from distill_ray.steps import Step, step, LoadDataFromDicts, LoadDataFromFileSystem; "
        "from distill_ray.steps.tasks import TextGeneration; "
        "print([m for m in ('ray', 'pyarrow', 'fsspec', 'rich', 'openai', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
