"""How batches of a step's rows are routed to some of the steps that follow it, and how that is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distill_ray.signature.encode import digest
from distill_ray.steps.base import BaseStep, GeneratorStep, Step
from distill_ray.steps.routing import RoutingBatchFunction
from distill_ray.steps.signing import signature_of

if TYPE_CHECKING:
    from distill_ray.graph.dag import Graph


@dataclass(frozen=True)
class Routing:
    """How batches of a step's rows are routed.

    Attributes:
        function: chooses among the steps.
        branches: for each step that is given such rows the one that must be chosen for it: itself, or the
            task that it is a part of.
    """

    function: RoutingBatchFunction
    branches: Mapping[str, str]

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that the function chooses among, in the order in which they were connected."""
        return tuple(dict.fromkeys(self.branches.values()))


@dataclass(frozen=True)
class SignedRouting:
    """All that decides where each row is routed.

    Attributes:
        upstream: the step whose rows are routed.
        steps: those that the function chooses among.
        batch_size: rows that are routed together: as many as there are in a batch of ``upstream``.
        function: the function.
        signature: of the function.
    """

    upstream: str
    steps: tuple[str, ...]
    batch_size: int
    function: RoutingBatchFunction = field(repr=False, compare=False)
    signature: str

    def key(self, upstream_key: str) -> str:
        """What names the routing of an output."""
        place = [self.upstream, list(self.steps), self.batch_size]
        return digest({"routed": upstream_key, "function": self.signature, "place": place})

    def choice(self, number: int) -> frozenset[str]:
        """The steps that batch ``number`` is routed to.

        Raises:
            GraphError: the function did not choose any of the steps.
        """
        return self.function.choice((self.signature, self.upstream), self.steps, number)

    def __str__(self) -> str:
        steps = ", ".join(f"'{name}'" for name in self.steps)
        name = f"{self.function.name} ({self.signature[:8]})"
        return f"'{self.upstream}' to {steps} by {name} in batches of {self.batch_size}"


def signed_routings(graph: Graph) -> dict[str, SignedRouting]:
    """The routings of a graph, by the step whose rows are routed.

    Raises:
        SignatureError: a function cannot be signed; names it and the step.
    """
    return {
        upstream: SignedRouting(
            upstream,
            routing.steps,
            _rows_in_batch(graph.steps[upstream]),
            routing.function,
            signature_of(
                routing.function.routing_function,
                f"Routing function '{routing.function.name}' after step '{upstream}'",
            ),
        )
        for upstream, routing in graph.routings.items()
    }


def routing_of(graph: Graph, routings: Mapping[str, SignedRouting], name: str) -> str | None:
    """How the rows that a step is given are routed, in words; None: they are not."""
    sources = [source for source in graph.predecessors(name) if graph.branch(source, name)]
    return "; ".join(str(routings[source]) for source in sources) or None


def _rows_in_batch(step: BaseStep) -> int:
    assert isinstance(step, Step | GeneratorStep)
    return step.batch_size if isinstance(step, GeneratorStep) else step.input_batch_size
