"""The door to what a run gives: leaf -> split -> rows, read lazily.

- `Distiset`: the leaves, and what is done with all of them: divide, save, load, upload
- `Dataset`: the rows of one split
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_ray.distiset.dataset import Dataset
    from distill_ray.distiset.distiset import Distiset
    from distill_ray.distiset.origin import PipelineOrigin

_HOMES = {
    "Dataset": "distill_ray.distiset.dataset",
    "Distiset": "distill_ray.distiset.distiset",
    "PipelineOrigin": "distill_ray.distiset.origin",
}

__all__ = ["Dataset", "Distiset", "PipelineOrigin"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'; it has {', '.join(__all__)}.")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
