"""What the user holds: `Pipeline`, and functions that route batches in it."""

from __future__ import annotations

from distill_ray.pipeline.pipeline import Pipeline
from distill_ray.steps.routing import RoutingBatchFunction, routing_batch_function, sample_n_steps

__all__ = ["Pipeline", "RoutingBatchFunction", "routing_batch_function", "sample_n_steps"]
