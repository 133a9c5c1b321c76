"""The names for users' annotations, where distilabel has them: ``distill_ray.typing``."""

from __future__ import annotations

from distill_ray.models.llm import ChatItem, ChatType
from distill_ray.models.outputs import GenerateOutput, LLMStatistics
from distill_ray.types import (
    GeneratorStepOutput,
    Row,
    RuntimeParameter,
    StepColumns,
    StepInput,
    StepOutput,
    Unsigned,
)

__all__ = [
    "ChatItem",
    "ChatType",
    "GenerateOutput",
    "GeneratorStepOutput",
    "LLMStatistics",
    "Row",
    "RuntimeParameter",
    "StepColumns",
    "StepInput",
    "StepOutput",
    "Unsigned",
]
