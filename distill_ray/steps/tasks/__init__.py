"""The door to the tasks: steps that ask an LLM."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_ray.steps.tasks.chat_generation import ChatGeneration
    from distill_ray.steps.tasks.task import Task
    from distill_ray.steps.tasks.text_generation import TextGeneration

_HOMES = {
    "ChatGeneration": "distill_ray.steps.tasks.chat_generation",
    "Task": "distill_ray.steps.tasks.task",
    "TextGeneration": "distill_ray.steps.tasks.text_generation",
}

__all__ = ["ChatGeneration", "Task", "TextGeneration"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'; it has {', '.join(__all__)}.")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
