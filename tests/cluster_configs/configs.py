"""Where the configurations are, what their commands are, and what Ray and others say that they may hold."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "cluster_configs"


def read(path: str) -> Any:
    """The one document of a YAML file below cluster_configs/."""
    return yaml.safe_load((CONFIGS / path).read_text(encoding="utf-8"))


def run_checker(program: str, *arguments: str, text: str | None = None) -> str:
    """What a checker of the active environment complains of; empty if it does not."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False).stdout


# --- Kubernetes ---------------------------------------------------------------------------------------------


def unlike_model(value: Any, model: Any, where: str) -> Iterator[str]:
    """What in a manifest is not as Kubernetes' API has it, ``model`` being lightkube's class of it."""
    origin, arguments = typing.get_origin(model), typing.get_args(model)
    if origin is typing.Union:
        (model,) = (argument for argument in arguments if argument is not type(None))
        yield from unlike_model(value, model, where)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where} is no list"
        else:
            for number, item in enumerate(value):
                yield from unlike_model(item, arguments[0], f"{where}[{number}]")
    elif origin is dict:
        for key, item in value.items():
            yield from unlike_model(item, arguments[1], f"{where}.{key}")
    elif model in (str, int, bool, float):
        if type(value) is not model:
            yield f"{where} is {value!r}, no {model.__name__}"
    elif isinstance(model, type) and model.__module__.startswith("lightkube"):
        yield from _unlike_fields(value, typing.get_type_hints(model), where)


def _unlike_fields(value: Mapping[str, Any], fields: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from (f"{where} has no field {name}" for name in value.keys() - fields.keys())
    for name, kind in fields.items():
        if name in value:
            yield from unlike_model(value[name], kind, f"{where}.{name}")
        elif type(None) not in typing.get_args(kind):
            yield f"{where} lacks {name}"


# --- Compute Engine -----------------------------------------------------------------------------------------


def compute_schemas() -> dict[str, Any]:
    """What the Compute Engine API takes, by its own description."""
    spec = find_spec("googleapiclient")
    assert spec, "install the extra [dev]"
    assert spec.origin
    path = Path(spec.origin).parent / "discovery_cache" / "documents" / "compute.v1.json"
    schemas: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["schemas"]
    return schemas


def unlike_schema(
    value: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any], where: str
) -> Iterator[str]:
    """What in the body of a request is not as the API describes it."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if schema["type"] == "object":
        yield from _unlike_object(value, schema, schemas, where)
    elif schema["type"] == "array":
        if not isinstance(value, list):
            yield f"{where} is no list"
        else:
            for number, item in enumerate(value):
                yield from unlike_schema(item, schema["items"], schemas, f"{where}[{number}]")
    elif schema["type"] == "boolean":
        if not isinstance(value, bool):
            yield f"{where} is {value!r}, no boolean"
    elif isinstance(value, bool | list | dict):
        yield f"{where} is {value!r}, no {schema['type']}"
    elif value not in schema.get("enum", [value]):
        yield f"{where} is {value!r}, none of {schema['enum']}"


def _unlike_object(
    value: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any], where: str
) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    fields = schema.get("properties", {})
    for name, item in value.items():
        kind = fields.get(name, schema.get("additionalProperties"))
        if kind is None:
            yield f"{where} has no field {name}"
        else:
            yield from unlike_schema(item, kind, schemas, f"{where}.{name}")
