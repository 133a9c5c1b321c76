from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import Field

from distill_ray.models import LLM, ChatType, GenerateOutput


class Echo(LLM):
    """A model that answers with what it was asked, once for each generation."""

    silent: bool = False
    with_logprobs: bool = False
    loads: list[str] = Field(default_factory=list)

    @property
    def model_name(self) -> str:
        return "echo"

    def load(self) -> None:
        self.loads.append("load")

    def unload(self) -> None:
        self.loads.append("unload")

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1, suffix: str = ""
    ) -> list[GenerateOutput]:
        return [self._answer(chat, num_generations, suffix) for chat in inputs]

    def _answer(self, chat: ChatType, count: int, suffix: str) -> GenerateOutput:
        said = f"{chat[-1]['content']}{suffix}"
        output: GenerateOutput = {
            "generations": [None if self.silent else f"{said} {n}" for n in range(count)],
            "statistics": {"input_tokens": [len(chat)] * count, "output_tokens": [len(said)] * count},
            "finish_reasons": ["stop"] * count,
        }
        if self.with_logprobs:
            output["logprobs"] = [[[{"token": str(n), "logprob": -1.0}]] for n in range(count)]
        return output


@pytest.fixture
def echo() -> Callable[..., Any]:
    return Echo
