"""The DAG of a pipeline's steps: their names and connections, their order and its signature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distill_ray.errors import GraphError
from distill_ray.graph.routing import Routing
from distill_ray.signature.encode import digest
from distill_ray.steps.base import BaseStep, snake_case
from distill_ray.steps.routing import RoutingBatchFunction


class Graph:
    """Steps by name, and for each step its predecessors in the order in which they were connected."""

    def __init__(self) -> None:
        self.steps: dict[str, BaseStep] = {}
        self.routings: dict[str, Routing] = {}
        """By the step whose batches are routed."""
        self._predecessors: dict[str, list[str]] = {}

    @classmethod
    def of(
        cls,
        steps: Mapping[str, BaseStep],
        predecessors: Mapping[str, Iterable[str]],
        routings: Mapping[str, Routing] | None = None,
    ) -> Graph:
        """Make a graph from steps, for each of them its predecessors, and what is routed."""
        graph = cls()
        graph.steps = dict(steps)
        graph.routings = dict(routings or {})
        graph._predecessors = {name: list(sources) for name, sources in predecessors.items()}
        return graph

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
                raise GraphError(f"Step '{name}' is not in this pipeline: {listed(self.steps)}.")
        if self.steps[downstream].is_generator:
            raise GraphError(
                f"'{upstream}' cannot flow into step '{downstream}', a generator step: these take no rows."
            )
        if upstream in self._predecessors[downstream]:
            raise GraphError(f"Step '{upstream}' is connected to '{downstream}' twice.")
        if upstream == downstream or downstream in self.ancestors(upstream):
            raise GraphError(f"Connecting '{upstream}' to '{downstream}' closes a cycle.")
        self._predecessors[downstream].append(upstream)

    def connect_all(
        self, upstream: str, downstream: Iterable[str], routing: RoutingBatchFunction | None = None
    ) -> None:
        """Let the rows of ``upstream`` flow into each of ``downstream``, or each batch into those chosen.

        Raises:
            GraphError: as `connect`; or there is nothing to choose from, or ``upstream`` is routed already.
        """
        steps = list(downstream)
        if routing is not None and upstream in self.routings:
            raise GraphError(
                f"Batches of step '{upstream}' are routed already, to "
                f"{listed(self.routings[upstream].steps)}: give one function the names of all steps."
            )
        if routing is not None and not steps:
            raise GraphError(f"'{routing.name}' has no steps to route batches of '{upstream}' to.")
        for name in steps:
            self.connect(upstream, name)
        if routing is not None:
            self.routings[upstream] = Routing(routing, {name: name for name in steps})

    def branch(self, upstream: str, downstream: str) -> str | None:
        """The step that must be chosen for a batch to flow here; None: each batch does."""
        routing = self.routings.get(upstream)
        return routing.branches.get(downstream) if routing else None

    def predecessors(self, name: str) -> tuple[str, ...]:
        """The steps whose rows flow into a step, in the order in which they were connected."""
        return tuple(self._predecessors[name])

    def successors(self, name: str) -> tuple[str, ...]:
        """The steps that a step's rows flow into."""
        return tuple(other for other, sources in self._predecessors.items() if name in sources)

    def ancestors(self, name: str) -> set[str]:
        """All steps that a step's rows come from."""
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
        described: dict[str, Any] = {
            "connections": {name: list(sources) for name, sources in self._predecessors.items()}
        }
        if self.routings:
            described["routed"] = {name: list(routing.steps) for name, routing in self.routings.items()}
        return digest(described)

    def with_steps(self, steps: Mapping[str, BaseStep]) -> Graph:
        """The same graph with other steps under some of the names."""
        return Graph.of({**self.steps, **steps}, self._predecessors, self.routings)

    def with_source(self, name: str, source: BaseStep) -> Graph:
        """The same graph with ``source`` flowing into every step that had no predecessor and needs one.

        Raises:
            GraphError: there is no such step, or another one has that name.
        """
        if name in self.steps:
            raise GraphError(
                f"The pipeline has a step named '{name}', as the rows given to `run` are: rename the step."
            )
        starts = [
            n for n, sources in self._predecessors.items() if not sources and not self.steps[n].is_generator
        ]
        if not starts:
            raise GraphError("`dataset` was given, but every step of the pipeline has its rows already.")
        predecessors = {**self._predecessors, **{start: [name] for start in starts}}
        return Graph.of({name: source, **self.steps}, {name: [], **predecessors}, self.routings)


def listed(names: Iterable[str]) -> str:
    """Names as a message shows them."""
    quoted = [f"'{name}'" for name in names]
    return ", ".join(quoted) if quoted else "there is none"
