"""Finds the pipeline in a user's script, without running what stands under ``if __name__ == "__main__"``."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from distill_ray.errors import ParameterError
from distill_ray.pipeline import Pipeline


def load_pipeline(target: str) -> Pipeline:
    """Load ``SCRIPT[:PIPELINE]``.

    Raises:
        ParameterError: there is no such script, or not exactly one pipeline of that name in it.
    """
    file, _, wanted = target.partition(":")
    path = Path(file)
    if not path.is_file():
        raise ParameterError(f"There is no script '{file}'.")
    pipelines = {name: value for name, value in _run(path).items() if isinstance(value, Pipeline)}
    if wanted:
        found = [p for name, p in pipelines.items() if wanted in (name, p.name)]
    else:
        found = list({id(p): p for p in pipelines.values()}.values())
    if len(found) == 1:
        return found[0]
    listed = ", ".join(sorted(pipelines)) or "it has none at its top level"
    problem = f"no pipeline '{wanted}'" if wanted else f"{len(found)} pipelines"
    raise ParameterError(f"'{file}' has {problem} (pipelines: {listed}). Name one: {file}:NAME.")


def _run(path: Path) -> dict[str, Any]:
    """Import the script as a module of its own name; its folder comes first on the path, as with python."""
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ParameterError(f"'{path}' is not a Python script.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return vars(module)


def parse_parameters(pipeline: Pipeline, given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Read ``STEP.FIELD[.FIELD...]=VALUE``; the value is JSON, or text where it is not.

    A field inside a dict, such as ``generation.llm.generation_kwargs.temperature``, keeps the dict's others.
    """
    parameters: dict[str, dict[str, Any]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        step, *fields = name.split(".")
        if not equals or not fields:
            raise ParameterError(f"--param wants STEP.FIELD=VALUE, not '{text}'.")
        model: Any = pipeline.graph.steps.get(step)
        _place(parameters.setdefault(step, {}), model, fields, _value(value))
    return parameters


def _place(tree: dict[str, Any], model: Any, fields: list[str], value: Any) -> None:
    first, *rest = fields
    if not rest:
        tree[first] = value
        return
    current = getattr(model, first, None) if isinstance(model, BaseModel) else None
    inner = tree.setdefault(first, dict(current) if isinstance(current, Mapping) else {})
    _place(inner, current, rest, value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that ``run``, ``plan`` and ``demo`` share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("--cache-dir", help="Path or URL of the cache root, such as gs://bucket/prefix."),
        click.option("--no-cache", is_flag=True, help="Compute every step anew (and store it)."),
        click.option(
            "--param",
            "params",
            multiple=True,
            metavar="STEP.FIELD=VALUE",
            help="A runtime parameter; may be given several times.",
        ),
    ):
        command = option(command)
    return command
