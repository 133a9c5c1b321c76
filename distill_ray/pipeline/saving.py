"""A pipeline as a plain tree, for YAML and JSON files, and back. Secrets are left out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from distill_ray.errors import GraphError, ParameterError
from distill_ray.graph import Graph
from distill_ray.steps.base import ACTIVE_REGISTRY, BaseStep

TYPE_INFO = "type_info"
ITEMS = "items"
_MAPPING = {"module": "builtins", "name": "dict"}
"""Marks a mapping that a file cannot hold as it is: as a list of its items."""


def dump_graph(graph: Graph) -> dict[str, Any]:
    """Steps with their classes and parameters, and the connections."""
    predecessors = {name: list(graph.predecessors(name)) for name in graph.steps}
    successors = {name: list(graph.successors(name)) for name in graph.steps}
    return {
        "steps": [
            {"name": name, "step": _dump(step, f"step '{name}'")} for name, step in graph.steps.items()
        ],
        "connections": [{"from": name, "to": to} for name, to in successors.items() if to],
        "order_of_inputs": {name: sources for name, sources in predecessors.items() if len(sources) > 1},
    }


def _dump(value: Any, where: str) -> Any:
    if isinstance(value, BaseModel):
        return _dump_model(value, where)
    if isinstance(value, Mapping):
        return _dump_mapping(value, where)
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
        name: _dump(getattr(model, name), f"{where}, '{name}'")
        for name, field in type(model).model_fields.items()
        if not field.exclude and not _secret(getattr(model, name))
    }
    tree[TYPE_INFO] = {"module": type(model).__module__, "name": type(model).__qualname__}
    return tree


def _dump_mapping(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    kept = {key: item for key, item in value.items() if not _secret(item)}
    if TYPE_INFO not in kept and all(isinstance(key, str) for key in kept):
        return {key: _dump(item, f"{where}, '{key}'") for key, item in kept.items()}
    items = [[_dump(key, where), _dump(item, f"{where}, {key!r}")] for key, item in kept.items()]
    return {ITEMS: items, TYPE_INFO: dict(_MAPPING)}


def _secret(value: Any) -> bool:
    return isinstance(value, SecretStr | SecretBytes)


def load_graph(tree: Mapping[str, Any]) -> Graph:
    """Make the steps of `dump_graph` again; no pipeline whose ``with`` block we are in takes them.

    Raises:
        GraphError: a class cannot be imported, or the tree is not one of ours.
    """
    token = ACTIVE_REGISTRY.set(None)
    try:
        return _load_graph(tree)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(f"This is not a saved pipeline: {type(error).__name__}: {error}") from error
    finally:
        ACTIVE_REGISTRY.reset(token)


def _load_graph(tree: Mapping[str, Any]) -> Graph:
    graph = Graph()
    for entry in tree["steps"]:
        step = _load(entry["step"], f"step '{entry['name']}'")
        if not isinstance(step, BaseStep):
            raise GraphError(f"Step '{entry['name']}' of the file is no step but {step!r:.200}.")
        step.name = entry["name"]
        graph.add(step)
    edges = [(each["from"], to) for each in tree["connections"] for to in each["to"]]
    order = tree.get("order_of_inputs", {})
    edges.sort(key=lambda edge: order.get(edge[1], [edge[0]]).index(edge[0]))
    for upstream, downstream in edges:
        graph.connect(upstream, downstream)
    return graph


def _load(tree: Any, where: str) -> Any:
    if isinstance(tree, list):
        return [_load(item, f"{where}[{position}]") for position, item in enumerate(tree)]
    if not isinstance(tree, Mapping):
        return tree
    if tree.get(TYPE_INFO) == _MAPPING:
        return {_load(key, where): _load(item, f"{where}, {key!r}") for key, item in tree[ITEMS]}
    values = {key: _load(item, f"{where}, '{key}'") for key, item in tree.items() if key != TYPE_INFO}
    return _find_model(tree[TYPE_INFO], where)(**values) if TYPE_INFO in tree else values


def _find_model(info: Mapping[str, str], where: str) -> type[BaseModel]:
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
    if not (isinstance(found, type) and issubclass(found, BaseModel)):  # a file must not call what it likes
        raise GraphError(f"{where}: `{module_name}.{qualified}` is no class of a step, a model or the like.")
    return found
