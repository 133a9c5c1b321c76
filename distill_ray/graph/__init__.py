"""The steps of a pipeline and their connections: connect, check, order, draw. No I/O; nothing runs here."""

from __future__ import annotations

from distill_ray.graph.checks import check
from distill_ray.graph.dag import Graph
from distill_ray.graph.expand import expand
from distill_ray.graph.mermaid import mermaid
from distill_ray.graph.stages import LoadGroups, stages_of

__all__ = ["Graph", "LoadGroups", "check", "expand", "mermaid", "stages_of"]
