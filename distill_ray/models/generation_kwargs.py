"""Which names and types ``generation_kwargs`` may hold: those of the model's own method."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from distill_ray.errors import ParameterError

MAX_NEW_TOKENS = "max_new_tokens"
"""The argument that says where an answer is cut."""

_GIVEN_BY_THE_TASK = {"self", "input", "inputs", "num_generations"}


def check_generation_kwargs(
    model: str, method: Callable[..., Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments as the method's types have them.

    Args:
        model: What to call the model in an error.
        method: The ``generate`` or ``agenerate`` that the arguments are for.
        kwargs: The arguments.

    Raises:
        ParameterError: For a name the method has not, or a value of another type.
    """
    form = _form(method)
    names = list(form.model_fields)
    open_ended = form.model_config.get("extra") == "allow"
    for name in kwargs:
        if name not in names and not open_ended:
            raise ParameterError(
                f"generation_kwargs of {model} has no '{name}'. Valid names: {', '.join(sorted(names))}."
            )
    try:
        checked = form.model_validate(dict(kwargs))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ParameterError(
            f"generation_kwargs of {model}: '{where}' = {first['input']!r}: {first['msg']}."
        ) from None
    return {name: getattr(checked, name) for name in kwargs}


@lru_cache(maxsize=256)
def default_of(method: Callable[..., Any], name: str) -> Any:
    """Return the default that a method's argument has; None where it has none, or no such argument."""
    parameter = inspect.signature(method).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


@lru_cache(maxsize=256)
def _form(method: Callable[..., Any]) -> type[BaseModel]:
    """Build a model whose fields are the method's parameters."""
    hints = _hints(method)
    fields: dict[str, Any] = {}
    extra: typing.Literal["allow", "forbid"] = "forbid"
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            extra = "allow"
        elif name not in _GIVEN_BY_THE_TASK and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            fields[name] = (hints.get(name, Any), None)
    config = ConfigDict(extra=extra, protected_namespaces=(), arbitrary_types_allowed=True)
    return create_model("GenerationKwargs", __config__=config, **fields)


def _hints(method: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters' types; a name that exists for type checkers only leaves them all unchecked."""
    try:
        return typing.get_type_hints(method, include_extras=True)
    except NameError:
        return {}
