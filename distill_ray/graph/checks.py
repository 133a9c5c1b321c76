"""What a graph must be to run: checked as a whole, before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distill_ray.errors import GraphError
from distill_ray.graph.dag import Graph, listed
from distill_ray.graph.routing import Routing
from distill_ray.graph.streams import convergences
from distill_ray.steps.base import BaseStep, GeneratorStep, Step
from distill_ray.steps.routing import SampleSteps
from distill_ray.types import StepColumns


def check(graph: Graph) -> None:
    """Refuse a graph that cannot run.

    Raises:
        GraphError: names the step and what to do.
    """
    if not graph.steps:
        raise GraphError("The pipeline has no steps: create them inside `with Pipeline(...)`.")
    made: dict[str, list[str] | None] = {}
    joins = convergences(graph)
    for name, routing in graph.routings.items():
        _check_sample(name, routing)
    for name in graph.order():
        step = graph.steps[name]
        _check_connected(graph, name, step)
        _check_process(graph, name, step)
        _check_transient_errors(name, step)
        if name in joins:
            _check_convergence(graph, name, step)
        outputs = step.outputs  # once for each step: a loader may open a file to know them
        _check_declared(name, "inputs", step.inputs)
        _check_declared(name, "outputs", outputs)
        _check_mappings(name, "input_mappings", step.input_mappings, step.inputs)
        _check_mappings(name, "output_mappings", step.output_mappings, outputs)
        _check_columns(name, step, [made[ancestor] for ancestor in graph.ancestors(name)])
        made[name] = _renamed(step, outputs) if outputs or not step.is_generator else None


def output_columns(step: BaseStep) -> list[str]:
    """Names of the columns that a step adds, as the steps after it see them."""
    return _renamed(step, step.outputs)


def _renamed(step: BaseStep, outputs: StepColumns) -> list[str]:
    return [step.output_mappings.get(name, name) for name in outputs]


def _check_connected(graph: Graph, name: str, step: BaseStep) -> None:
    if step.is_generator:
        if not graph.successors(name) and len(graph.steps) > 1:
            raise GraphError(f"Generator step '{name}' is connected to nothing: add `{name} >> other_step`.")
    elif not graph.predecessors(name):
        raise GraphError(
            f"Step '{name}' is given no rows: connect a step to it (`loader >> {name}`), "
            "or pass `dataset=` to `run`."
        )


def _check_process(graph: Graph, name: str, step: BaseStep) -> None:
    """Hold that ``process`` can be called as it is going to be."""
    assert isinstance(step, Step | GeneratorStep)
    parameters = inspect.signature(step.process).parameters.values()
    if unknown := [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]:
        raise GraphError(
            f"Step '{name}': its `process` wants {listed(unknown)}, which nothing gives to it: make it a "
            "parameter of the step."
        )
    if isinstance(step, GeneratorStep):
        _check_offset(name, parameters)
    elif not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        _check_arity(name, graph.predecessors(name), parameters)


def _check_transient_errors(name: str, step: BaseStep) -> None:
    """Hold that an error can be compared with them: where one comes it is too late to say so."""
    kinds: Any = step.transient_errors if isinstance(step, Step) else ()
    given = kinds if isinstance(kinds, list | tuple) else [None]
    if all(isinstance(kind, type) and issubclass(kind, Exception) for kind in given):
        return
    raise GraphError(
        f"Step '{name}': `transient_errors` must be a tuple of classes of exceptions, such as "
        f"`(TimeoutError,)`; got {kinds!r:.200}."
    )


def _check_sample(name: str, routing: Routing) -> None:
    function, steps = routing.function.routing_function, len(routing.steps)
    if isinstance(function, SampleSteps) and function.n > steps:
        raise GraphError(
            f"Batches of step '{name}' are routed by {routing.function.name}, but there are {steps} steps to "
            f"choose from: {listed(routing.steps)}."
        )


def _check_convergence(graph: Graph, name: str, step: BaseStep) -> None:
    assert isinstance(step, Step)
    parameters = inspect.signature(step.process).parameters.values()
    joined = f"Step '{name}' joins batches that are routed ({listed(graph.predecessors(name))})"
    if step.is_global:
        raise GraphError(
            f"{joined}, but it is a global step, which is given all rows at once: put a step between that "
            "joins each batch."
        )
    if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise GraphError(
            f"{joined}: it is given a list of each step that a batch was routed to, and of no other. Write "
            "`def process(self, *inputs)`."
        )


def _check_offset(name: str, parameters: Iterable[inspect.Parameter]) -> None:
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not takes_any and "offset" not in [p.name for p in parameters]:
        raise GraphError(
            f"Generator step '{name}': its `process` does not take `offset`, the number of the first row "
            "wanted: write `def process(self, offset=0)`."
        )
    required = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if wrong := [each for each in required if each != "offset"]:
        raise GraphError(
            f"Generator step '{name}' is given no rows, but its `process` wants {listed(wrong)}: make it a "
            "parameter of the step."
        )


def _check_arity(name: str, sources: tuple[str, ...], parameters: Iterable[inspect.Parameter]) -> None:
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if len(required) <= len(sources) <= len(positional):
        return
    steps = "1 step" if len(sources) == 1 else f"{len(sources)} steps"
    inputs = "1 input" if len(required) == 1 else f"{len(required)} inputs"
    raise GraphError(
        f"Step '{name}' follows {steps} ({listed(sources)}), but its `process` takes {inputs}: "
        "write `def process(self, *inputs)` to take several."
    )


def _check_declared(name: str, field: str, columns: Any) -> None:
    if isinstance(columns, list | tuple | dict) and all(isinstance(column, str) for column in columns):
        return
    remedy = "write `@property` above it" if callable(columns) else f"got {columns!r:.200}"
    raise GraphError(f"Step '{name}': `{field}` must be a list of columns or {{column: required}}; {remedy}.")


def _check_mappings(name: str, field: str, mappings: Mapping[str, str], columns: StepColumns) -> None:
    if columns and (unknown := [column for column in mappings if column not in columns]):
        raise GraphError(
            f"Step '{name}': `{field}` renames {listed(unknown)}, but the step has {listed(columns)}. "
            "Write `{name in the step: column of the rows}`."
        )
    if twice := _given_twice(mappings):
        raise GraphError(f"Step '{name}': `{field}` gives the column '{twice}' to several names.")


def _given_twice(mappings: Mapping[str, str]) -> str | None:
    columns = list(mappings.values())
    return next((column for column in columns if columns.count(column) > 1), None)


def _check_columns(name: str, step: BaseStep, made: Sequence[list[str] | None]) -> None:
    """Hold that the steps above make the columns needed; None stands for a step that may make any."""
    if None in made:
        return
    available = {column for columns in made for column in columns or ()}
    for column in _required(step.inputs):
        mapped = step.input_mappings.get(column, column)
        if mapped not in available:
            raise GraphError(
                f"Step '{name}' needs the column '{mapped}', which no step before it makes: "
                f"{listed(sorted(available))}. Use `input_mappings={{'{column}': ...}}` to name another one."
            )


def _required(columns: StepColumns) -> list[str]:
    if isinstance(columns, dict):
        return [name for name, required in columns.items() if required]
    return list(columns)
