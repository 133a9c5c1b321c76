"""Parameters given to a run: ``{step name: {parameter: value}}``, set on copies of the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from distill_ray.errors import ParameterError
from distill_ray.graph import Graph
from distill_ray.steps.marks import is_runtime_parameter


def with_parameters(graph: Graph, parameters: Mapping[str, Mapping[str, Any]]) -> Graph:
    """Return the same graph with copies of the steps that parameters were given for.

    Raises:
        ParameterError: a step or a parameter is unknown, or a value does not fit; lists what there is.
    """
    changed = {}
    for name, values in parameters.items():
        step = graph.steps.get(name)
        if step is None:
            known = ", ".join(f"'{each}'" for each in graph.steps)
            raise ParameterError(f"Parameters were given for step '{name}', but the steps are: {known}.")
        changed[name] = _with_values(step, values, f"step '{name}'")
    return graph.with_steps(changed)


def _with_values(model: Any, values: Mapping[str, Any], where: str) -> Any:
    copy = model.model_copy()
    for name, value in values.items():
        known = runtime_parameters(copy)
        if name not in known:
            listed = ", ".join(f"'{each}'" for each in sorted(known)) or "there are none"
            raise ParameterError(
                f"{where} has no runtime parameter '{name}'. Its runtime parameters: {listed}."
            )
        current = getattr(copy, name)
        if isinstance(current, BaseModel) and isinstance(value, Mapping):
            value = _with_values(current, value, f"{where}, '{name}'")
        try:
            setattr(copy, name, value)
        except ValidationError as error:
            problems = "; ".join(problem["msg"] for problem in error.errors())
            raise ParameterError(f"{where}: {value!r} does not fit '{name}': {problems}.") from error
    return copy


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
        for parameter, field in type(step).model_fields.items():
            if not is_runtime_parameter(field):
                continue
            if getattr(step, parameter) is None and not _takes_none(field.annotation):
                raise ParameterError(
                    f"Step '{name}' lacks its runtime parameter '{parameter}': "
                    f"run(parameters={{'{name}': {{'{parameter}': ...}}}})."
                )


def _takes_none(annotation: Any) -> bool:
    arguments = get_args(annotation)
    if annotation is None or annotation is Any or type(None) in arguments:
        return True
    return any(_takes_none(each) for each in arguments if each is not type(None) and get_args(each))
