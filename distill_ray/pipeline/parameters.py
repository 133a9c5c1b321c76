"""Parameters given to a run: ``{step name: {parameter: value}}``, set on copies of the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from distill_ray.errors import ParameterError
from distill_ray.graph import Graph
from distill_ray.steps.base import ACTIVE_REGISTRY
from distill_ray.steps.marks import is_runtime_parameter

ModelT = TypeVar("ModelT", bound=BaseModel)

CHANGED_BY_KEY = "generation_kwargs"
"""The parameter whose keys are parameters themselves: those that a run does not give stay as they are."""


def with_parameters(graph: Graph, parameters: Mapping[str, Mapping[str, Any]]) -> Graph:
    """Return the same graph with copies of the steps that parameters were given for.

    Raises:
        ParameterError: a step or a parameter is unknown, or a value does not fit; lists what there is.
    """
    if not isinstance(parameters, Mapping):
        raise ParameterError(
            f"`parameters` must be {{step name: {{parameter: value}}}}, got {parameters!r:.200}."
        )
    changed = {}
    token = ACTIVE_REGISTRY.set(None)  # the copies belong to the run, not to the pipeline
    try:
        for name, values in parameters.items():
            step = graph.steps.get(name)
            if step is None:
                known = ", ".join(f"'{each}'" for each in graph.steps)
                raise ParameterError(f"Parameters were given for step '{name}', but the steps are: {known}.")
            changed[name] = _with_values(step, values, f"step '{name}'")
    finally:
        ACTIVE_REGISTRY.reset(token)
    return graph.with_steps(changed)


def _with_values(model: ModelT, values: Mapping[str, Any], where: str) -> ModelT:
    """Make the model again with other values: all at once, since what is valid may depend on several."""
    if not isinstance(values, Mapping):
        raise ParameterError(f"Parameters of {where} must be {{parameter: value}}, got {values!r:.200}.")
    known = runtime_parameters(model)
    if unknown := [name for name in values if name not in known]:
        listed = ", ".join(f"'{each}'" for each in sorted(known)) or "there are none"
        raise ParameterError(
            f"There is no runtime parameter '{unknown[0]}' of {where}. Its runtime parameters: {listed}."
        )
    fields = {name: getattr(model, name) for name in type(model).model_fields if name != "pipeline"}
    for name, value in values.items():
        current = fields[name]
        if isinstance(current, BaseModel) and not isinstance(value, BaseModel):
            fields[name] = _with_values(current, value, f"{where}, '{name}'")
        elif name == CHANGED_BY_KEY and isinstance(value, Mapping):
            fields[name] = {**current, **value}
        else:
            fields[name] = value
    return type(model)(**fields)


def runtime_parameters(model: BaseModel) -> list[str]:
    """Names of the fields that may be given to a run: marked ones, and models nested in the step."""
    return [
        name
        for name, field in type(model).model_fields.items()
        if isinstance(getattr(model, name), BaseModel) or is_runtime_parameter(field)
    ]


def check_given(graph: Graph) -> None:
    """Refuse runtime parameters that have no value although their type wants one.

    Raises:
        ParameterError: names step and parameter.
    """
    for name, step in graph.steps.items():
        for path in _lacking(step):
            given = "".join(f"{{'{each}': " for each in (name, *path)) + "..." + "}" * (len(path) + 1)
            raise ParameterError(
                f"Step '{name}' lacks its runtime parameter '{'.'.join(path)}': run(parameters={given})."
            )


def _lacking(model: BaseModel) -> Iterator[tuple[str, ...]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from ((name, *path) for path in _lacking(value))
        elif value is None and is_runtime_parameter(field) and not _takes_none(field.annotation):
            yield (name,)


def _takes_none(annotation: Any) -> bool:
    arguments = get_args(annotation)
    if annotation is None or annotation is Any or type(None) in arguments:
        return True
    return any(_takes_none(each) for each in arguments if each is not type(None) and get_args(each))
