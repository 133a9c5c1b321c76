"""What importing costs, what the public doors offer, and that what is imported is declared."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]

CLIENTS = {"gcsfs", "openai", "huggingface_hub", "xllamacpp", "vllm", "pandas", "datasets"}
HEAVY = {"ray", "pyarrow", "fsspec", "rich", *CLIENTS}

DOORS = {
    "distill_ray": ["__version__"],
    "distill_ray.pipeline": ["Pipeline", "RoutingBatchFunction", "routing_batch_function", "sample_n_steps"],
    "distill_ray.distiset": ["Dataset", "Distiset", "PipelineOrigin"],
    "distill_ray.models": [
        "AsyncLLM",
        "ChatItem",
        "ChatType",
        "GenerateOutput",
        "InferenceEndpointsLLM",
        "LLM",
        "LLMStatistics",
        "LlamaCppLLM",
        "OpenAILLM",
        "vLLM",
    ],
    "distill_ray.steps": [
        "GeneratorStep",
        "GeneratorStepOutput",
        "GlobalStep",
        "KeepColumns",
        "LoadDataFromDicts",
        "LoadDataFromFileSystem",
        "RowFailure",
        "RuntimeParameter",
        "Step",
        "StepColumns",
        "StepInput",
        "StepOutput",
        "StepResources",
        "Unsigned",
        "step",
    ],
    "distill_ray.steps.tasks": ["ChatGeneration", "Task", "TextGeneration"],
    "distill_ray.typing": [
        "ChatItem",
        "ChatType",
        "GenerateOutput",
        "GeneratorStepOutput",
        "LLMStatistics",
        "Row",
        "RuntimeParameter",
        "StepColumns",
        "StepInput",
        "StepOutput",
        "Unsigned",
    ],
}

LAZY = ["distill_ray.distiset", "distill_ray.models", "distill_ray.steps", "distill_ray.steps.tasks"]
"""Doors whose names are loaded from their homes when they are first used."""


def in_a_new_process(statements: str) -> tuple[set[str], float]:
    """Run statements; return the heavy modules that they loaded and the seconds that they took."""
    script = (
        "import json, sys, time\n"
        "started = time.perf_counter()\n"
        f"{statements}\n"
        "print(json.dumps([list(sys.modules), time.perf_counter() - started]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded, seconds = json.loads(done.stdout.splitlines()[-1])
    return set(loaded) & HEAVY, seconds


def declaration() -> str:
    """The quickstart up to the line that runs it."""
    return (ROOT / "examples" / "quickstart.py").read_text().partition("\nif __name__")[0]


def test_importing_the_package_loads_nothing_heavy_and_takes_no_time() -> None:
    loaded, seconds = in_a_new_process("import distill_ray")
    assert loaded == set()
    assert seconds < 0.5


@pytest.mark.parametrize("door", DOORS)
def test_opening_a_door_loads_nothing_heavy(door: str) -> None:
    assert in_a_new_process(f"import {door}")[0] == set()


@pytest.mark.parametrize("door", [door for door in DOORS if door != "distill_ray.distiset"])
def test_using_every_name_of_a_door_loads_nothing_heavy(door: str) -> None:
    assert in_a_new_process(f"from {door} import *")[0] == set()


def test_a_distiset_loads_arrow_and_nothing_else_that_is_heavy() -> None:
    assert in_a_new_process("from distill_ray.distiset import Distiset; Distiset()")[0] == {"pyarrow"}


def test_declaring_models_loads_no_client_and_no_engine() -> None:
    models = (
        "m.LlamaCppLLM(), m.vLLM(model='m/m'), m.OpenAILLM(model='m'), m.InferenceEndpointsLLM(model_id='m')"
    )
    assert in_a_new_process(f"import distill_ray.models as m; {models}")[0] == set()


def test_declaring_a_pipeline_loads_nothing_heavy() -> None:
    assert in_a_new_process(declaration())[0] == set()


def test_planning_does_not_load_ray() -> None:
    plan = "assert pipeline.plan()['text_generation_0'].decision == 'compute'"
    loaded, _ = in_a_new_process(f"{declaration()}\n{plan}")
    assert not loaded & {"ray", "rich", *CLIENTS}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_lists_its_names_and_each_is_there(door: str) -> None:
    module = import_module(door)
    assert sorted(module.__all__) == DOORS[door]
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("door", LAZY)
def test_a_door_answers_a_name_that_it_lacks_with_those_that_it_has(door: str) -> None:
    module = import_module(door)
    assert dir(module) == DOORS[door]
    with pytest.raises(AttributeError, match=f"no attribute 'Keep'; it has .*{DOORS[door][-1]}"):
        _ = module.Keep


def test_the_version_is_the_one_that_is_packed() -> None:
    assert import_module("distill_ray").__version__ == project()["version"]


# Dependencies.

LOADED_BY_NAME = {"gcsfs", "s3fs", "adlfs"}
"""What no `import` statement shows: fsspec's backends."""

TESTING = ROOT / "distill_ray" / "testing"
"""Test suites for people who have pytest: not part of what a run needs."""


def test_what_the_package_imports_is_declared() -> None:
    assert distributions(imported("distill_ray")) <= declared(
        "dependencies", "pandas", "hf", "s3", "azure", "vllm", "testing"
    )


def test_what_tests_and_scripts_import_is_declared() -> None:
    scripts = imported("tests") | imported("tools") | imported("examples") | imported("benchmarks")
    beside = {name for path in (ROOT / "tests").rglob("*.py") for name in (path.stem, path.parent.name)}
    assert distributions(scripts - beside) <= declared("dependencies", "pandas", "hf", "s3", "azure", "dev")


def test_what_is_declared_is_used() -> None:
    unused = declared("dependencies") - distributions(imported("distill_ray"))
    assert unused <= LOADED_BY_NAME


def imported(folder: str) -> set[str]:
    """Top-level names of all modules that a folder's files import and that neither Python nor we provide."""
    paths = [path for path in (ROOT / folder).rglob("*.py") if TESTING not in path.parents]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    names = {name.split(".")[0] for tree in trees for name in names_in(tree)}
    ours = {"distill_ray", "tests", "tools", "benchmarks"}
    return names - set(sys.stdlib_module_names) - ours - {"tomllib"}  # in the standard library since 3.11


def names_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def distributions(modules: set[str]) -> set[str]:
    """The names under which the index has these modules."""
    return {"pyyaml" if module == "yaml" else canonical(module) for module in modules}


def declared(*groups: str) -> set[str]:
    table = project()
    lists = {"dependencies": table["dependencies"], **table["optional-dependencies"]}
    return {canonical(requirement) for group in groups for requirement in lists[group]}


def canonical(requirement: str) -> str:
    """The distribution's name in a requirement, as the index writes it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table
