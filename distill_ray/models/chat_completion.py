"""Reads a chat completion, the answer that llama.cpp, OpenAI's API and its many relatives give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distill_ray.errors import ModelError
from distill_ray.models.outputs import GenerateOutput


def read_chat_completion(answer: Any) -> GenerateOutput:
    """Return the generations, token counts and finish reasons of a chat completion.

    A request for several choices has one count of tokens for all of them: the prompt counts for the first
    generation, and the output is divided evenly, so the sums are exact.

    Raises:
        ModelError: The answer holds no choices.
    """
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices:
        raise ModelError(f"the server's answer is no chat completion: {_excerpt(answer)}")
    choices = sorted(choices, key=lambda choice: choice.get("index") or 0)
    usage = answer.get("usage") or {}
    count = len(choices)
    output: GenerateOutput = {
        "generations": [(choice.get("message") or {}).get("content") for choice in choices],
        "statistics": {
            "input_tokens": [usage.get("prompt_tokens") or 0] + [0] * (count - 1),
            "output_tokens": _divide(usage.get("completion_tokens") or 0, count),
        },
        "finish_reasons": [choice.get("finish_reason") or "unknown" for choice in choices],
    }
    if count > 1:
        output["most_tokens"] = [usage.get("completion_tokens") or 0] * count
    if any(choice.get("logprobs") for choice in choices):
        output["logprobs"] = [_read_logprobs(choice.get("logprobs")) for choice in choices]
    return output


def _read_logprobs(logprobs: Any) -> list[list[dict[str, Any]]]:
    """Return, for each token of a generation, the alternatives with their log probabilities."""
    tokens = (logprobs or {}).get("content") or []
    return [
        [
            {"token": option["token"], "logprob": option["logprob"]}
            for option in token.get("top_logprobs") or [token]
        ]
        for token in tokens
    ]


def _divide(total: int, parts: int) -> list[int]:
    share, rest = divmod(total, parts)
    return [share + (index < rest) for index in range(parts)]


def _excerpt(answer: Any, limit: int = 500) -> str:
    text = json.dumps(answer, default=str, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[:limit]}..."
