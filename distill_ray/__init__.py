"""Synthetic-data pipelines on Ray that never pay twice.

The public doors are ``distill_ray.pipeline``, ``distill_ray.steps``, ``distill_ray.steps.tasks``,
``distill_ray.models`` and ``distill_ray.distiset``. Importing this package loads none of them.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
