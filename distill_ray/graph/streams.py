"""Which rows steps are given where batches are routed, all or some, and where these meet again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from distill_ray.errors import GraphError
from distill_ray.graph.dag import Graph, listed

Stream: TypeAlias = tuple[tuple[str, frozenset[str]], ...]
"""Which rows they are: from the first routing on, the step whose batches were routed, and the steps of which
one must have been chosen; empty: all rows. Rows of one stream belong together, number by number."""


@dataclass(frozen=True)
class Convergence:
    """A step that joins what became of batches that were routed to different steps.

    Attributes:
        upstream: the step whose batches were routed.
        branches: for each predecessor the steps of which one must have been chosen for it to have a batch.
    """

    upstream: str
    branches: tuple[frozenset[str], ...]


def convergences(graph: Graph) -> dict[str, Convergence]:
    """The steps that join routed batches.

    Raises:
        GraphError: a step joins rows that do not belong together.
    """
    streams: dict[str, Stream] = {}
    found: dict[str, Convergence] = {}
    for name in graph.order():
        sources = graph.predecessors(name)
        given = [_on_edge(graph, source, name, streams[source]) for source in sources]
        if not given or all(each == given[0] for each in given):
            streams[name] = given[0] if given else ()
            continue
        found[name], streams[name] = _converged(graph, name, sources, given)
    return found


def is_given_some(graph: Graph, name: str) -> bool:
    """Whether a step is given, or joins, only those rows of its predecessors that are routed there."""
    routed = any(graph.branch(source, name) for source in graph.predecessors(name))
    return routed or (bool(graph.routings) and name in convergences(graph))


def _on_edge(graph: Graph, source: str, name: str, stream: Stream) -> Stream:
    branch = graph.branch(source, name)
    return stream if branch is None else _of_branches(graph, stream, source, frozenset([branch]))


def _of_branches(graph: Graph, stream: Stream, source: str, branches: frozenset[str]) -> Stream:
    all_steps = branches == frozenset(graph.routings[source].steps)
    return stream if all_steps else (*stream, (source, branches))


def _converged(
    graph: Graph, name: str, sources: Sequence[str], given: Sequence[Stream]
) -> tuple[Convergence, Stream]:
    if not all(given) or len({(stream[:-1], stream[-1][0]) for stream in given}) > 1:
        raise GraphError(_apart(name, dict(zip(sources, given, strict=True))))
    *above, (upstream, _) = given[0]
    branches = tuple(stream[-1][1] for stream in given)
    joined = _of_branches(graph, tuple(above), upstream, frozenset().union(*branches))
    return Convergence(upstream, branches), joined


def _apart(name: str, given: Mapping[str, Stream]) -> str:
    told = "; ".join(f"'{source}' gives {_described(stream)}" for source, stream in given.items())
    return (
        f"Step '{name}' joins rows that do not belong together, since some are routed: {told}. Join "
        "what became of batches of one step (`upstream >> routing >> [a, b] >> join`), and nothing else."
    )


def _described(stream: Stream) -> str:
    if not stream:
        return "those of all batches"
    upstream, branches = stream[-1]
    return f"those of batches of '{upstream}' that are routed to {listed(sorted(branches))}"
