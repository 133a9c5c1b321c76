"""A pipeline as a plain tree, for YAML and JSON files, and back. Secrets are left out."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from distill_ray import __version__
from distill_ray.credentials import shown
from distill_ray.errors import GraphError, ParameterError
from distill_ray.graph import Graph
from distill_ray.graph.routing import Routing
from distill_ray.signature.stand_in import is_secret
from distill_ray.steps.base import ACTIVE_REGISTRY, BaseStep
from distill_ray.steps.marks import is_unsigned
from distill_ray.steps.routing import RoutingBatchFunction, SampleSteps
from distill_ray.steps.secrets import is_credential

TYPE_INFO = "type_info"
ITEMS = "items"
_MAPPING = {"module": "builtins", "name": "dict"}
"""Marks a mapping that a file cannot hold as it is: as a list of its items."""

_DESCRIBED = ("name", "description", "enable_metadata")


def dump_pipeline(described: Mapping[str, Any], graph: Graph) -> dict[str, Any]:
    """Give the tree of a pipeline: its arguments, its steps with their parameters, and the connections."""
    predecessors = {name: list(graph.predecessors(name)) for name in graph.steps}
    successors = {name: list(graph.successors(name)) for name in graph.steps}
    return {
        "distill_ray": {"version": __version__},
        "pipeline": {
            **{name: described[name] for name in _DESCRIBED},
            "steps": [
                {"name": name, "step": _dump(step, f"step '{name}'")} for name, step in graph.steps.items()
            ],
            "connections": [{"from": name, "to": to} for name, to in successors.items() if to],
            "order_of_inputs": {name: above for name, above in predecessors.items() if len(above) > 1},
            "routing_batch_functions": [
                {"step": name, "to": list(routing.steps), **_dump_routing(routing.function, name)}
                for name, routing in graph.routings.items()
            ],
        },
        "requirements": described["requirements"],
    }


def _dump_routing(routing: RoutingBatchFunction, step: str) -> dict[str, Any]:
    function = routing.routing_function
    if isinstance(function, SampleSteps):
        return {"description": routing.description, **_dump_model(function, f"routing after step '{step}'")}
    info = {"module": getattr(function, "__module__", ""), "name": getattr(function, "__qualname__", "")}
    return {"description": routing.description, TYPE_INFO: info}


def _dump(value: Any, where: str) -> Any:
    if isinstance(value, BaseModel):
        return _dump_model(value, where)
    if isinstance(value, Mapping):
        return _dump_mapping(value, where)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [
            _dump(item, f"{where}[{position}]") for position, item in enumerate(items) if not is_secret(item)
        ]
    if isinstance(value, Enum):
        return _dump(value.value, where)
    if isinstance(value, Path):
        return str(value)
    plain = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    if value is None or plain:
        return plain(value) if plain else None
    raise ParameterError(f"{where} is a {type(value).__name__}, which cannot be written to YAML or JSON.")


def _dump_model(model: BaseModel, where: str) -> dict[str, Any]:
    tree = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if not field.exclude and not is_secret(value) and not is_credential(name, field):
            dumped = _dump(value, f"{where}, '{name}'")
            tree[name] = shown(dumped) if is_unsigned(field) else dumped
    tree[TYPE_INFO] = {"module": type(model).__module__, "name": type(model).__qualname__}
    return tree


def _dump_mapping(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    kept = {key: item for key, item in value.items() if not is_secret(item)}
    if TYPE_INFO not in kept and all(isinstance(key, str) for key in kept):
        return {key: _dump(item, f"{where}, '{key}'") for key, item in kept.items()}
    items = [[_dump(key, where), _dump(item, f"{where}, {key!r}")] for key, item in kept.items()]
    return {ITEMS: items, TYPE_INFO: dict(_MAPPING)}


def load_pipeline(tree: Mapping[str, Any]) -> tuple[dict[str, Any], Graph]:
    """Make a pipeline's arguments and steps again; no pipeline whose ``with`` block we are in takes them.

    Raises:
        GraphError: a class cannot be imported, or the tree is not one of ours.
    """
    token = ACTIVE_REGISTRY.set(None)
    try:
        saved = tree["pipeline"]
        described = {name: saved[name] for name in _DESCRIBED if name in saved}
        return {**described, "requirements": tree.get("requirements")}, _load_graph(saved)
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
    for entry in tree.get("routing_batch_functions", []):
        upstream, steps = entry["step"], entry["to"]
        if missing := [name for name in steps if upstream not in graph.predecessors(name)]:
            raise GraphError(
                f"Batches of '{upstream}' are routed to '{missing[0]}', which does not follow it."
            )
        graph.routings[upstream] = Routing(_load_routing(entry), {name: name for name in steps})
    return graph


def _load_routing(entry: Mapping[str, Any]) -> RoutingBatchFunction:
    where = f"the routing after step '{entry['step']}'"
    found = _find(entry[TYPE_INFO], where)
    if found is SampleSteps:
        return RoutingBatchFunction(SampleSteps(n=entry["n"]), entry["description"])
    if isinstance(found, RoutingBatchFunction):
        return found
    name = entry[TYPE_INFO]
    raise GraphError(f"{where}: `{name['module']}.{name['name']}` is no routing batch function.")


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
    found = _find(info, where)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):  # a file must not call what it likes
        raise GraphError(
            f"{where}: `{info['module']}.{info['name']}` is no class of a step, a model or the like."
        )
    return found


def _find(info: Mapping[str, str], where: str) -> Any:
    module_name, qualified = info["module"], info["name"]
    try:
        found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise GraphError(
            f"{where}: cannot import `{qualified}` from `{module_name}`: {error}. A pipeline's file names "
            "classes and functions, it does not hold them: they must be importable where it is loaded."
        ) from error
    return found


def write_tree(tree: Mapping[str, Any], path: Path, *, as_json: bool | None = None) -> None:
    """Write a tree as JSON or as YAML; where not said, as the file's name ends, else as JSON."""
    if path.suffix not in (".yaml", ".yml") if as_json is None else as_json:
        text = json.dumps(tree, indent=2)
    else:
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        GraphError: it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GraphError(f"'{path}' is no JSON file: {error}") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        GraphError: it is none.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise GraphError(f"'{path}' is no YAML file: {error}") from error
