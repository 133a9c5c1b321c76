"""The graph of a pipeline as a tree of names, for terminals."""

from __future__ import annotations

import sys

from distill_ray.graph import Graph


def show(graph: Graph) -> None:
    """Draw the graph on standard output, if that is a terminal."""
    if not sys.stdout.isatty():
        return
    from rich.console import Console

    Console().print(picture(graph), markup=False, highlight=False)  # names stand in brackets


def picture(graph: Graph) -> str:
    """Layers from left to right: each step stands one column behind the last of its predecessors."""
    depth: dict[str, int] = {}
    for name in graph.order():
        depth[name] = 1 + max((depth[source] for source in graph.predecessors(name)), default=-1)
    lines = []
    for name in graph.order():
        sources = ", ".join(graph.predecessors(name))
        arrow = f"{sources} -> " if sources else ""
        lines.append(f"{'    ' * depth[name]}{arrow}[{name}] {type(graph.steps[name]).__name__}")
    return "\n".join(lines)
