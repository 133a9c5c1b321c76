"""Which steps are computed anew because the cache is not to be used, and where that was said."""

from __future__ import annotations

from distill_ray.explain.reason import Reason
from distill_ray.graph import Graph


def forced_steps(graph: Graph, use_cache: bool) -> dict[str, Reason]:
    """Steps that are computed anew, and why."""
    forced: dict[str, Reason] = {}
    for name in graph.order():
        above = next((source for source in graph.predecessors(name) if source in forced), None)
        if not use_cache:
            forced[name] = Reason("forced", "run(use_cache=False)")
        elif not graph.steps[name].use_cache:
            forced[name] = Reason("forced", "use_cache=False on this step", steps=(name,))
        elif above:
            text = f"'{above}' above it is computed anew"
            forced[name] = Reason("forced", text, steps=forced[above].steps)
    return forced
