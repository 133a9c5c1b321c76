"""What users declare (steps, models, resources): pydantic models whose mistakes are errors of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from distill_ray.credentials import MASK, names_credential, shown
from distill_ray.errors import GraphError, ParameterError


class Declaration(BaseModel):
    """A model of parameters that says which class, which name and which parameter is wrong.

    ``self._logger`` is for the classes' own messages, as in distilabel.

    Raises:
        GraphError: the class lacks a method that its base leaves to it.
        ParameterError: a parameter is unknown, is missing, or has a value that does not fit.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let go of what a function that defines the class has at hand: replicas are sent all of a class."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__pydantic_complete__:  # else it is looked up there yet
            cls.__pydantic_parent_namespace__ = None

    def __new__(cls, *_: Any, **parameters: Any) -> Self:
        """Refuse a class that is not finished, by the names of what it lacks."""
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            listed = " and no ".join(f"`{name}`" for name in missing)
            raise GraphError(f"{_label(cls, parameters)} has no {listed}: define it in the class.")
        return super().__new__(cls)

    def __init__(self, **parameters: Any) -> None:
        # None where it is the default is not checked: a parameter may wait for the run that gives it.
        unsaid = {name for name, field in type(self).model_fields.items() if field.default is None}
        given = {n: value for n, value in parameters.items() if value is not None or n not in unsaid}
        try:
            super().__init__(**given)
        except ValidationError as error:
            # Not chained: pydantic's text repeats the values, secrets included.
            raise ParameterError(
                f"{_label(type(self), parameters)}: {_problems(type(self), error)}"
            ) from None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the parameters without what are credentials by their names, and those in URLs."""
        for name, value in super().__repr_args__():
            plain = isinstance(value, str) and names_credential(name)
            yield name, MASK if plain else shown(value)

    if TYPE_CHECKING:
        _logger: logging.Logger
    else:  # a type checker that sees these lets any attribute be read and set

        def __getattr__(self, name: str) -> Any:
            """Give ``_logger`` where the class has none of its own."""
            if name == "_logger" and name not in self.__private_attributes__:
                return logging.getLogger(f"distill_ray.{self.__dict__.get('name') or type(self).__name__}")
            return super().__getattr__(name)

        def __setattr__(self, name: str, value: Any) -> None:
            """Set a parameter to a value that fits."""
            if not hasattr(self, "__pydantic_fields_set__"):
                raise GraphError(
                    f"{type(self).__name__}: its `__init__` must call `super().__init__(...)` first. "
                    f"Better, have none, and declare `{name}: ...` in the class."
                )
            try:
                super().__setattr__(name, value)
            except ValidationError as error:
                label = _label(type(self), self.__dict__)
                raise ParameterError(f"{label}: {_problems(type(self), error)}") from None


def _problems(model: type[BaseModel], error: ValidationError) -> str:
    """What is wrong with a model's parameters, in one line."""
    return "; ".join(_problem(model, each) for each in error.errors(include_url=False))


def _problem(model: type[BaseModel], details: Any) -> str:
    path = [str(part) for part in details["loc"]]
    fields = {name: field for name, field in model.model_fields.items() if not field.exclude}
    if details["type"] == "extra_forbidden" and len(path) == 1:
        return f"there is no parameter '{path[0]}'. Its parameters: {', '.join(fields)}."
    if details["type"] == "missing" and len(path) == 1:
        return f"the parameter '{path[0]}' must be given."
    if details["type"] == "no_such_attribute":
        return (
            f"there is no parameter '{path[0]}': declare it in the class, or name it `_{path[0]}` if it is "
            "no parameter but made in `load`."
        )
    message = details["msg"].removeprefix("Value error, ")
    field = model.model_fields.get(path[0]) if path else None
    secret = any(map(names_credential, path)) or (field is not None and _may_hold_secret(field.annotation))
    told = field is not None and field.repr and not secret
    got = f", got {shown(details['input'])!r:.200}" if told else ""
    return f"'{'.'.join(path)}': {message}{got}." if path else f"{message}."


def _may_hold_secret(annotation: Any, *, within: frozenset[Any] = frozenset()) -> bool:
    """Whether a value of this type may be, or have in it, what pydantic keeps secret."""
    if annotation in within:
        return False
    held = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        held = tuple(field.annotation for field in annotation.model_fields.values())
    within |= {annotation}
    return "Secret" in str(annotation) or any(_may_hold_secret(each, within=within) for each in held)


def _label(cls: type, parameters: dict[str, Any]) -> str:
    name = parameters.get("name")
    return f"Step '{name}' ({cls.__name__})" if isinstance(name, str) else cls.__name__
