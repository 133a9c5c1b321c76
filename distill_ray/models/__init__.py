"""The door to the language models that tasks ask.

Importing it imports no client library and no inference engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_ray.models.inference_endpoints import InferenceEndpointsLLM
    from distill_ray.models.llama_cpp import LlamaCppLLM
    from distill_ray.models.llm import LLM, AsyncLLM, ChatItem, ChatType
    from distill_ray.models.openai import OpenAILLM
    from distill_ray.models.outputs import GenerateOutput, LLMStatistics
    from distill_ray.models.vllm import vLLM

_HOMES = {
    "AsyncLLM": "distill_ray.models.llm",
    "ChatItem": "distill_ray.models.llm",
    "ChatType": "distill_ray.models.llm",
    "GenerateOutput": "distill_ray.models.outputs",
    "InferenceEndpointsLLM": "distill_ray.models.inference_endpoints",
    "LLM": "distill_ray.models.llm",
    "LLMStatistics": "distill_ray.models.outputs",
    "LlamaCppLLM": "distill_ray.models.llama_cpp",
    "OpenAILLM": "distill_ray.models.openai",
    "vLLM": "distill_ray.models.vllm",
}

__all__ = [
    "LLM",
    "AsyncLLM",
    "ChatItem",
    "ChatType",
    "GenerateOutput",
    "InferenceEndpointsLLM",
    "LLMStatistics",
    "LlamaCppLLM",
    "OpenAILLM",
    "vLLM",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'; it has {', '.join(__all__)}.")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
