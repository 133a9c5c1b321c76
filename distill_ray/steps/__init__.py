"""The door to the steps: bases to derive from, the `step` decorator, and the steps that ship."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_ray.resources import StepResources
    from distill_ray.steps.base import GeneratorStep, GlobalStep, Step
    from distill_ray.steps.columns.keep import KeepColumns
    from distill_ray.steps.decorator import step
    from distill_ray.steps.loaders.dicts import LoadDataFromDicts
    from distill_ray.steps.loaders.file_system import LoadDataFromFileSystem
    from distill_ray.types import (
        GeneratorStepOutput,
        RowFailure,
        RuntimeParameter,
        StepColumns,
        StepInput,
        StepOutput,
        Unsigned,
    )

_HOMES = {
    "GeneratorStep": "distill_ray.steps.base",
    "GeneratorStepOutput": "distill_ray.types",
    "GlobalStep": "distill_ray.steps.base",
    "KeepColumns": "distill_ray.steps.columns.keep",
    "LoadDataFromDicts": "distill_ray.steps.loaders.dicts",
    "LoadDataFromFileSystem": "distill_ray.steps.loaders.file_system",
    "RowFailure": "distill_ray.types",
    "RuntimeParameter": "distill_ray.types",
    "Step": "distill_ray.steps.base",
    "StepColumns": "distill_ray.types",
    "StepInput": "distill_ray.types",
    "StepOutput": "distill_ray.types",
    "StepResources": "distill_ray.resources",
    "Unsigned": "distill_ray.types",
    "step": "distill_ray.steps.decorator",
}

__all__ = [
    "GeneratorStep",
    "GeneratorStepOutput",
    "GlobalStep",
    "KeepColumns",
    "LoadDataFromDicts",
    "LoadDataFromFileSystem",
    "RowFailure",
    "RuntimeParameter",
    "Step",
    "StepColumns",
    "StepInput",
    "StepOutput",
    "StepResources",
    "Unsigned",
    "step",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'; it has {', '.join(__all__)}.")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
