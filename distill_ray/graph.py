"""The DAG of a pipeline's steps: connect, check, order, sign. No I/O; nothing runs here."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distill_ray.errors import GraphError
from distill_ray.signature.encode import digest
from distill_ray.steps.base import BaseStep, GeneratorStep, Step, snake_case
from distill_ray.types import StepColumns


class Graph:
    """Steps by name, and for each step its predecessors in the order in which they were connected."""

    def __init__(self) -> None:
        self.steps: dict[str, BaseStep] = {}
        self._predecessors: dict[str, list[str]] = {}

    def add(self, step: BaseStep) -> str:
        """Take a step in under its name, or one inferred from its class; returns the name."""
        name = step.name or self._inferred_name(step)
        if name in self.steps:
            raise GraphError(
                f"Two steps of the pipeline are named '{name}' ({type(self.steps[name]).__name__} and "
                f"{type(step).__name__}): give one of them another `name`."
            )
        self.steps[name] = step
        self._predecessors[name] = []
        return name

    def _inferred_name(self, step: BaseStep) -> str:
        stem, number = snake_case(type(step).__name__), 0
        while f"{stem}_{number}" in self.steps:
            number += 1
        return f"{stem}_{number}"

    def connect(self, upstream: str, downstream: str) -> None:
        """Let the rows of ``upstream`` flow into ``downstream``.

        Raises:
            GraphError: a step is unknown, is a generator downstream, or the connection closes a cycle.
        """
        for name in (upstream, downstream):
            if name not in self.steps:
                raise GraphError(f"Step '{name}' is not in this pipeline: {_listed(self.steps)}.")
        if self.steps[downstream].is_generator:
            raise GraphError(
                f"Step '{downstream}' is a generator step, which takes no rows: '{upstream}' cannot flow into it."
            )
        if upstream in self._predecessors[downstream]:
            raise GraphError(f"Step '{upstream}' is connected to '{downstream}' twice.")
        if upstream == downstream or downstream in self.ancestors(upstream):
            raise GraphError(f"Connecting '{upstream}' to '{downstream}' closes a cycle.")
        self._predecessors[downstream].append(upstream)

    def predecessors(self, name: str) -> tuple[str, ...]:
        return tuple(self._predecessors[name])

    def successors(self, name: str) -> tuple[str, ...]:
        return tuple(other for other, sources in self._predecessors.items() if name in sources)

    def ancestors(self, name: str) -> set[str]:
        found: set[str] = set()
        waiting = list(self._predecessors[name])
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting += self._predecessors[current]
        return found

    def leaves(self) -> tuple[str, ...]:
        """Steps that nothing follows."""
        inner = {source for sources in self._predecessors.values() for source in sources}
        return tuple(name for name in self.steps if name not in inner)

    def order(self) -> tuple[str, ...]:
        """All names, each after its predecessors."""
        ordered: dict[str, None] = {}

        waiting = list(self.steps)
        while waiting:
            ready = [name for name in waiting if all(p in ordered for p in self._predecessors[name])]
            ordered.update(dict.fromkeys(ready))
            waiting = [name for name in waiting if name not in ordered]
        return tuple(ordered)

    def signature(self) -> str:
        """Digest of the steps' names and connections."""
        return digest({"connections": {name: list(sources) for name, sources in self._predecessors.items()}})

    def with_steps(self, steps: Mapping[str, BaseStep]) -> Graph:
        """The same graph with other steps under some of the names."""
        other = Graph()
        other.steps = {**self.steps, **steps}
        other._predecessors = {name: list(sources) for name, sources in self._predecessors.items()}
        return other

    def with_source(self, name: str, source: BaseStep) -> Graph:
        """The same graph with ``source`` flowing into every step that had no predecessor and needs one."""
        starts = [
            n for n, sources in self._predecessors.items() if not sources and not self.steps[n].is_generator
        ]
        if not starts:
            raise GraphError("`dataset` was given, but every step of the pipeline has its rows already.")
        other = Graph()
        other.steps = {name: source, **self.steps}
        other._predecessors = {name: [], **{n: list(sources) for n, sources in self._predecessors.items()}}
        for start in starts:
            other._predecessors[start] = [name]
        return other


def check(graph: Graph) -> None:
    """Refuse a graph that cannot run.

    Raises:
        GraphError: names the step and what to do.
    """
    if not graph.steps:
        raise GraphError("The pipeline has no steps: create them inside `with Pipeline(...)`.")
    for name in graph.order():
        step = graph.steps[name]
        _check_process(name, step)
        _check_connected(graph, name, step)
        _check_arity(graph, name, step)
        _check_columns(graph, name, step)


def _check_process(name: str, step: BaseStep) -> None:
    if type(step).process in (Step.process, GeneratorStep.process):  # type: ignore[attr-defined]
        raise GraphError(f"Step '{name}' ({type(step).__name__}) has no `process` method: define one.")


def _check_connected(graph: Graph, name: str, step: BaseStep) -> None:
    if step.is_generator:
        if not graph.successors(name) and len(graph.steps) > 1:
            raise GraphError(f"Generator step '{name}' is connected to nothing: add `{name} >> other_step`.")
        return
    if not graph.predecessors(name):
        raise GraphError(
            f"Step '{name}' is given no rows: connect a step to it (`loader >> {name}`), "
            "or pass `dataset=` to `run`."
        )


def _check_arity(graph: Graph, name: str, step: BaseStep) -> None:
    given = len(graph.predecessors(name))
    if step.is_generator:
        return
    parameters = inspect.signature(step.process).parameters.values()  # type: ignore[attr-defined]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if not len(required) <= given <= len(positional):
        raise GraphError(
            f"Step '{name}' follows {given} steps ({_listed(graph.predecessors(name))}), but its `process` "
            f"takes {len(required)} inputs: write `def process(self, *inputs)` to take several."
        )


def _check_columns(graph: Graph, name: str, step: BaseStep) -> None:
    ancestors = graph.ancestors(name)
    if any(graph.steps[a].is_generator and not column_names(graph.steps[a].outputs) for a in ancestors):
        return  # a generator that declares no columns may make any
    available = {column for ancestor in ancestors for column in output_columns(graph.steps[ancestor])}
    for column in _required(step.inputs):
        mapped = step.input_mappings.get(column, column)
        if mapped not in available:
            raise GraphError(
                f"Step '{name}' needs the column '{mapped}', which no step before it makes: "
                f"{_listed(sorted(available))}. Use `input_mappings={{'{column}': ...}}` to name another one."
            )


def _required(columns: StepColumns) -> list[str]:
    if isinstance(columns, dict):
        return [name for name, required in columns.items() if required]
    return list(columns)


def column_names(columns: StepColumns) -> list[str]:
    """The names, whether they were given as a list or as ``{name: required}``."""
    return list(columns)


def output_columns(step: BaseStep) -> list[str]:
    """Names of the columns that a step adds, as the steps after it see them."""
    return [step.output_mappings.get(name, name) for name in column_names(step.outputs)]


def _listed(names: Iterable[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return ", ".join(quoted) if quoted else "there is none"


def mermaid(graph: Graph) -> str:
    """The graph as Mermaid text."""
    numbers = {name: f"s{position}" for position, name in enumerate(graph.order())}
    lines = ["flowchart LR"]
    for name, number in numbers.items():
        step = graph.steps[name]
        left, right = ("([", "])") if step.is_generator else ("[[", "]]") if step.is_global else ("[", "]")
        lines.append(f'    {number}{left}"{_escaped(name)}<br/>{type(step).__name__}"{right}')
    for name in numbers:
        for source in graph.predecessors(name):
            columns = ", ".join(_escaped(column) for column in output_columns(graph.steps[source]))
            label = f'|"{columns}"|' if columns else ""
            lines.append(f"    {numbers[source]} -->{label} {numbers[name]}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def connections(graph: Graph) -> Sequence[Mapping[str, Any]]:
    """``[{"from": name, "to": [names]}]``, as a saved pipeline lists them."""
    return [{"from": name, "to": list(graph.successors(name))} for name in graph.steps]
