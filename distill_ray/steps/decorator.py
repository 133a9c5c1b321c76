"""The `step` decorator: makes a step class from a function."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace, new_class
from typing import Any, Literal, TypeAlias

from distill_ray.errors import GraphError, ParameterError
from distill_ray.steps.base import BaseStep, GeneratorStep, GlobalStep, Step, label_of
from distill_ray.steps.marks import marks_in
from distill_ray.types import RuntimeParameterMark, StepColumns

StepType: TypeAlias = Literal["normal", "global", "generator"]
ProcessFunction: TypeAlias = Callable[..., Iterator[Any]]

_POSITIONAL = frozenset(
    {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    }
)
_BASES: dict[str, type[BaseStep]] = {"normal": Step, "global": GlobalStep, "generator": GeneratorStep}


def step(
    inputs: StepColumns | None = None,
    outputs: StepColumns | None = None,
    step_type: StepType = "normal",
    *,
    row_wise: bool = False,
) -> Callable[[ProcessFunction], type[Any]]:  # Any, since type checkers cannot see the parameters made here
    """Make a step class from a function that yields lists of rows.

    The class has the function's name. Parameters annotated ``RuntimeParameter[...]`` become parameters of
    the step; the others are given the rows, or in a generator step, where one is named ``offset``, the number
    of the first row wanted. A generator function without it starts anew, and its first rows are dropped.
    A parameter without a default may be given in ``run(parameters=...)``.

    Args:
        inputs: columns that the step reads.
        outputs: columns that the step adds.
        step_type: ``"normal"``, ``"global"`` or ``"generator"``.
        row_wise: what the function gives for a row depends on ``inputs`` of that row alone: see `Step`.

    Example:
        >>> @step(inputs=["text"], outputs=["length"])
        ... def Measure(inputs: StepInput, factor: RuntimeParameter[int] = 1):
        ...     yield [{**row, "length": factor * len(row["text"])} for row in inputs]
        >>> next(Measure(factor=2).process([{"text": "abc"}]))
        [{'text': 'abc', 'length': 6}]
    """
    if callable(inputs):
        raise GraphError("@step wants parentheses: write `@step(inputs=[...], outputs=[...])`.")
    if step_type not in _BASES:
        raise GraphError(f"@step: step_type must be one of {', '.join(_BASES)}, got '{step_type}'.")
    if step_type == "generator" and inputs:
        raise GraphError("@step: a generator step has no inputs.")
    if row_wise and step_type != "normal":
        raise GraphError(f"@step: a {step_type} step is not given rows one by one: leave out row_wise.")

    def decorate(function: ProcessFunction) -> type[BaseStep]:
        parameters = _Parameters.of(function, generator=step_type == "generator")
        namespace = {
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
            "__doc__": function.__doc__,
            "__annotations__": parameters.annotations,
            **parameters.defaults,
            "function": staticmethod(function),
            **({"row_wise": True} if row_wise else {}),  # generator steps have no such class variable
            "inputs": property(lambda self: inputs or []),  # noqa: ARG005
            "outputs": property(lambda self: outputs or []),  # noqa: ARG005
            "process": _generating(parameters) if step_type == "generator" else _processing(parameters),
        }
        made: type[BaseStep] = new_class(
            function.__name__, (_BASES[step_type],), exec_body=lambda body: body.update(namespace)
        )
        return made

    return decorate


@dataclass(frozen=True)
class _Parameters:
    """What a function's parameters are: settings of the step, or places for rows."""

    annotations: dict[str, Any]
    defaults: dict[str, Any]
    required: frozenset[str]
    others: tuple[inspect.Parameter, ...]
    has_offset: bool

    @classmethod
    def of(cls, function: ProcessFunction, *, generator: bool) -> _Parameters:
        annotations: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        required = set()
        others = []
        for name, parameter in inspect.signature(function).parameters.items():
            annotation = _resolve(function, name, parameter.annotation)
            if not any(isinstance(mark, RuntimeParameterMark) for mark in marks_in(annotation)):
                others.append(parameter)
                continue
            annotations[name] = annotation
            if parameter.default is parameter.empty:
                required.add(name)
            else:
                defaults[name] = parameter.default
        _check_others(function, others, generator=generator)
        has_offset = generator and any(parameter.name == "offset" for parameter in others)
        return cls(annotations, defaults, frozenset(required), tuple(others), has_offset)

    def values(self, instance: BaseStep) -> dict[str, Any]:
        """Return the step's settings, as the function's arguments."""
        values = {name: getattr(instance, name) for name in self.annotations}
        if missing := [name for name in self.annotations if name in self.required and values[name] is None]:
            raise ParameterError(
                f"Step '{label_of(instance)}' has no value for {', '.join(missing)}: give it to the "
                "step, or to run(parameters={step name: {...}})."
            )
        return values


def _processing(parameters: _Parameters) -> Callable[..., Iterator[Any]]:
    def process(self: Any, *inputs: Any) -> Iterator[Any]:
        """Call the function with the rows and the step's settings."""
        result: Iterator[Any] = self.function(*inputs, **parameters.values(self))
        return result

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    places = [each.replace(annotation=inspect.Parameter.empty) for each in parameters.others]
    process.__signature__ = inspect.Signature([itself, *places])  # type: ignore[attr-defined]
    return process


def _generating(parameters: _Parameters) -> Callable[..., Iterator[Any]]:
    def process(self: Any, offset: int = 0) -> Iterator[Any]:
        """Call the function with the step's settings, and yield its rows from number ``offset`` on."""
        if parameters.has_offset:
            yield from self.function(offset=offset, **parameters.values(self))
            return
        to_drop = offset
        for rows, last in self.function(**parameters.values(self)):
            kept = rows[to_drop:]
            to_drop = max(0, to_drop - len(rows))
            if kept or last or not rows:
                yield kept, last

    return process


def _resolve(function: ProcessFunction, name: str, annotation: Any) -> Any:
    """Evaluate an annotation that is text; one that can only be evaluated by a type checker stays text."""
    if not isinstance(annotation, str):
        return annotation
    names = inspect.getclosurevars(function).nonlocals
    holder: Any = SimpleNamespace(__annotations__={name: annotation})
    try:
        hints = typing.get_type_hints(
            holder, getattr(function, "__globals__", {}), names, include_extras=True
        )
    except NameError as error:
        if "RuntimeParameter" in annotation:
            raise GraphError(
                f"@step function '{function.__name__}', parameter '{name}': cannot evaluate its annotation "
                f"'{annotation}' ({error}). Import what it names outside of `if TYPE_CHECKING`."
            ) from error
        return annotation
    return hints[name]


def _check_others(function: ProcessFunction, others: list[inspect.Parameter], *, generator: bool) -> None:
    """Hold that the parameters that are no settings are places for rows, or a generator's offset."""
    places = [parameter for parameter in others if parameter.default is parameter.empty]
    if generator:
        wrong = [parameter.name for parameter in places if parameter.name != "offset"]
        if wrong:
            raise GraphError(
                f"@step function '{function.__name__}': a generator step is given no rows, so annotate "
                f"{', '.join(wrong)} as RuntimeParameter[...]."
            )
    elif not any(parameter.kind in _POSITIONAL for parameter in places):
        raise GraphError(
            f"@step function '{function.__name__}' has no parameter for rows (`inputs: StepInput`)."
        )
    elif wrong := [parameter.name for parameter in places if parameter.kind is parameter.KEYWORD_ONLY]:
        raise GraphError(
            f"@step function '{function.__name__}': annotate {', '.join(wrong)} as RuntimeParameter[...]."
        )
