"""What the user holds: `Pipeline`."""

from __future__ import annotations

from distill_ray.pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]
