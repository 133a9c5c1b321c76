"""The model that is asked, and the task that asks it."""

import hashlib
import json
from typing import Any

from pydantic import SecretStr

from distill_ray.models import LLM, ChatType, GenerateOutput
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import Unsigned
from shop.base import note
from shop.words import number_of


class Oracle(LLM):
    """Gives the same answer to the same question: as many words as the order's number says."""

    model: str = "oracle-1"
    api_key: SecretStr = SecretStr("not-for-anyone")
    timeout: Unsigned[float] = 30.0
    log: Unsigned[str]

    @property
    def model_name(self) -> str:
        return self.model

    def generate(
        self,
        inputs: list[ChatType],
        num_generations: int = 1,
        max_new_tokens: int = 8,
        temperature: float = 0.7,
        seed: int = 0,
    ) -> list[GenerateOutput]:
        note(self.log, "llm", len(inputs) * num_generations)
        return [self._answer(chat, num_generations, max_new_tokens, (temperature, seed)) for chat in inputs]

    def _answer(self, chat: ChatType, count: int, limit: int, settings: Any) -> GenerateOutput:
        length = 1 + number_of(chat[-1]["content"]) % 10
        temperature, seed = settings
        texts = [
            self._words(chat, temperature, seed + sample)[: min(length, limit)] for sample in range(count)
        ]
        return {
            "generations": [" ".join(words) for words in texts],
            "statistics": {"input_tokens": [9] * count, "output_tokens": [min(length, limit)] * count},
            "finish_reasons": ["stop" if length < limit else "length"] * count,
        }

    def _words(self, *asked: Any) -> list[str]:
        digest = hashlib.sha256(json.dumps([self.model, *asked]).encode()).hexdigest()
        return [digest[start : start + 6] for start in range(0, 60, 6)]


class Ask(TextGeneration):
    """Answers a customer."""

    log: Unsigned[str]

    @property
    def outputs(self) -> list[str]:
        return ["answer", "model_name"]

    def format_input(self, input: dict[str, Any]) -> ChatType:
        note(self.log, "render", 1)
        chat = super().format_input(input)
        chat[-1]["content"] += " please"
        return chat

    def format_output(self, output: str | None, input: dict[str, Any]) -> dict[str, Any]:
        note(self.log, "read", 1)
        return {"answer": (output or "").strip()}
