"""Complete outputs of earlier runs on their way into the steps that follow: not all is read at once."""

from __future__ import annotations

from collections.abc import Iterator

from distill_ray.cache.units import StoredRows
from distill_ray.engine.scheduling.blocks import Blocks
from distill_ray.engine.scheduling.edge import Edge


class Feeds:
    """The edges that come from outputs which are there already, by the steps that gave these."""

    def __init__(self) -> None:
        self._edges: dict[str, list[Edge]] = {}

    def add(self, edge: Edge) -> None:
        """Take an edge in."""
        self._edges.setdefault(edge.producer, []).append(edge)

    def consumers(self, producer: str) -> Iterator[str]:
        """The steps that follow an output."""
        return (consumer for edge in self._edges.get(producer, ()) for consumer in edge.consumers)

    def feed(self, producer: str, found: StoredRows, blocks: Blocks) -> None:
        """Give rows of an output to the steps that follow it."""
        piece = blocks.stored(producer, found)
        for edge in self._edges.get(producer, ()):
            blocks.need(piece.slice)
            edge.push(piece)

    def wants_rows(self, producer: str) -> bool:
        """Whether a step that follows an output has few of its rows left."""
        return any(edge.wants_rows for edge in self._edges.get(producer, ()))

    def end(self, producer: str) -> None:
        """All rows of an output were given."""
        for edge in self._edges.get(producer, ()):
            edge.close()
