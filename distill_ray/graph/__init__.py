"""The steps of a pipeline and their connections: connect, check, order, draw. No I/O; nothing runs here."""

from __future__ import annotations

from distill_ray.graph.checks import check
from distill_ray.graph.dag import Graph
from distill_ray.graph.expand import expand
from distill_ray.graph.mermaid import mermaid

__all__ = ["Graph", "check", "expand", "mermaid"]
