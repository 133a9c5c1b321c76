"""A graph as Mermaid text, which GitHub, notebooks and documentation tools draw."""

from __future__ import annotations

from distill_ray.graph.checks import output_columns
from distill_ray.graph.dag import Graph
from distill_ray.steps.base import kind_of

_SHAPES = {"generator": ("([", "])"), "step": ("[", "]"), "global": ("[[", "]]")}


def mermaid(graph: Graph, *, top_to_bottom: bool = False, show_edge_labels: bool = True) -> str:
    """Return the graph as Mermaid text.

    Args:
        graph: the graph.
        top_to_bottom: let it flow downwards instead of to the right.
        show_edge_labels: write the columns that a step makes at the arrows that leave it.
    """
    numbers = {name: f"s{position}" for position, name in enumerate(graph.order())}
    lines = ["flowchart TD" if top_to_bottom else "flowchart LR"]
    for name, number in numbers.items():
        step = graph.steps[name]
        left, right = _SHAPES[kind_of(step)]
        lines.append(f'    {number}{left}"{_escaped(name)}<br/>{type(step).__name__}"{right}')
    for name, number in numbers.items():
        for source in graph.predecessors(name):
            columns = output_columns(graph.steps[source]) if show_edge_labels else []
            label = f'|"{", ".join(map(_escaped, columns))}"|' if columns else ""
            arrow = "-.->" if graph.branch(source, name) else "-->"  # dotted: not each batch goes there
            lines.append(f"    {numbers[source]} {arrow}{label} {number}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
