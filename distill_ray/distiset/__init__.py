"""What a run gives: leaf -> split -> rows, read lazily. What users import, loaded when it is first used.

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

__all__ = ["Dataset", "Distiset", "PipelineOrigin"]

_MODULES = {"Dataset": "dataset", "Distiset": "distiset", "PipelineOrigin": "origin"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
