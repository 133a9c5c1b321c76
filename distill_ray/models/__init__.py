"""The language models that tasks ask: what users import, loaded when it is first used.

Importing this package imports no client library and no inference engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_ray.models.inference_endpoints import InferenceEndpointsLLM
    from distill_ray.models.llama_cpp import LlamaCppLLM
    from distill_ray.models.llm import LLM, AsyncLLM, ChatItem, ChatType, GenerateOutput, LLMStatistics
    from distill_ray.models.openai import OpenAILLM

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
]

_MODULES = {
    "InferenceEndpointsLLM": "inference_endpoints",
    "LlamaCppLLM": "llama_cpp",
    "OpenAILLM": "openai",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'llm')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
