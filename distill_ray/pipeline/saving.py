"""A pipeline as a plain tree, for YAML and JSON files, and back. Secrets are left out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from distill_ray import __version__
from distill_ray.errors import GraphError, ParameterError
from distill_ray.graph import Graph, connections
from distill_ray.steps.base import BaseStep

TYPE_INFO = "type_info"


def dump_graph(graph: Graph) -> dict[str, Any]:
    """Steps with their classes and parameters, and the connections."""
    return {
        "steps": [
            {"name": name, "step": _dump(step, f"step '{name}'")} for name, step in graph.steps.items()
        ],
        "connections": [dict(each) for each in connections(graph) if each["to"]],
        "order_of_inputs": {
            n: list(graph.predecessors(n)) for n in graph.steps if len(graph.predecessors(n)) > 1
        },
    }


def dump_pipeline(
    graph: Graph, name: str | None, description: str | None, requirements: list[str]
) -> dict[str, Any]:
    """The tree that is written to a file."""
    return {
        "distill_ray": {"version": __version__},
        "pipeline": {"name": name, "description": description, **dump_graph(graph)},
        "requirements": requirements,
    }


def _dump(value: Any, where: str) -> Any:
    if isinstance(value, BaseModel):
        return _dump_model(value, where)
    if isinstance(value, Mapping):
        return {str(key): _dump(item, f"{where}.{key}") for key, item in value.items() if not _secret(item)}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [
            _dump(item, f"{where}[{position}]") for position, item in enumerate(items) if not _secret(item)
        ]
    if isinstance(value, Enum):
        return _dump(value.value, where)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ParameterError(f"{where} is a {type(value).__name__}, which cannot be written to YAML or JSON.")


def _dump_model(model: BaseModel, where: str) -> dict[str, Any]:
    tree = {
        name: _dump(getattr(model, name), f"{where}.{name}")
        for name, field in type(model).model_fields.items()
        if not field.exclude and not _secret(getattr(model, name))
    }
    tree[TYPE_INFO] = {"module": type(model).__module__, "name": type(model).__qualname__}
    return tree


def _secret(value: Any) -> bool:
    return isinstance(value, SecretStr | SecretBytes)


def load_graph(tree: Mapping[str, Any]) -> Graph:
    """Make the steps of `dump_graph` again.

    Raises:
        GraphError: a class cannot be imported, or the tree is not one of ours.
    """
    graph = Graph()
    try:
        for entry in tree["steps"]:
            step = _load(entry["step"], f"step '{entry['name']}'")
            if not isinstance(step, BaseStep):
                raise GraphError(f"Step '{entry['name']}' of the file is no step but {step!r:.200}.")
            graph.add(step)
        edges = [(each["from"], to) for each in tree["connections"] for to in each["to"]]
        order = tree.get("order_of_inputs", {})
    except (KeyError, TypeError) as error:
        raise GraphError(f"The file is not a saved pipeline: {type(error).__name__}: {error}") from error
    edges.sort(key=lambda edge: order.get(edge[1], [edge[0]]).index(edge[0]))
    for upstream, downstream in edges:
        graph.connect(upstream, downstream)
    return graph


def _load(tree: Any, where: str) -> Any:
    if isinstance(tree, Mapping):
        values = {key: _load(item, f"{where}.{key}") for key, item in tree.items() if key != TYPE_INFO}
        return _find_class(tree[TYPE_INFO], where)(**values) if TYPE_INFO in tree else values
    if isinstance(tree, list):
        return [_load(item, f"{where}[{position}]") for position, item in enumerate(tree)]
    return tree


def _find_class(info: Mapping[str, str], where: str) -> Any:
    module_name, qualified = info["module"], info["name"]
    try:
        found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise GraphError(
            f"{where}: cannot import `{qualified}` from `{module_name}`: {error}. A pipeline's file names "
            "classes, it does not hold them: they must be importable where it is loaded."
        ) from error
    return found
