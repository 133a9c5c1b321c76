"""vLLM's asynchronous engine: started, asked and ended on one event loop. Nothing else here imports vLLM."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import Self

from distill_ray.errors import ModelError, ParameterError, ProcessUnusableError
from distill_ray.models.hf_model import HFModel
from distill_ray.models.llm import ChatType
from distill_ray.models.outputs import GenerateOutput

_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM can be told that an adapter's rank is at most."""

LOOK_SECONDS = 1.0
"""Seconds from one look at whether the engine lives to the next."""

_NOT_ANSWERED = frozenset({None, "abort", "error"})


class Engine:
    """An engine that runs, and the adapter that its answers are made with."""

    def __init__(self, engine: Any, lora: Any) -> None:
        self._engine = engine
        self._lora = lora
        self._numbers = itertools.count()
        self._death = asyncio.ensure_future(self._watch())

    @classmethod
    async def start(cls, arguments: Mapping[str, Any], adapter: HFModel | None) -> Self:
        """Load the model; the engine stays on the loop that this runs on.

        Args:
            arguments: of vLLM's ``AsyncEngineArgs``.
            adapter: a LoRA adapter.

        Raises:
            ModelError: it cannot be loaded.
            ParameterError: vLLM knows no such argument.
        """
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
        if unknown := [name for name in arguments if name not in known]:
            raise ParameterError(f"extra_kwargs of vLLM: vllm.AsyncEngineArgs has no '{unknown[0]}'.")
        lora, needs = (None, {}) if adapter is None else _lora(adapter)
        try:
            engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**{**needs, **arguments}))
        except Exception as error:
            raise ModelError(
                f"vLLM cannot load '{arguments['model']}': {type(error).__name__}: {error}. "
                "With `verbose=True` the engine says more."
            ) from error
        return cls(engine, lora)

    async def stop(self) -> None:
        """End the engine and its processes."""
        self._death.cancel()
        engine, self._engine = self._engine, None
        if engine.output_handler is not None:  # or it would report the wanted end as a failure
            engine.output_handler.cancel()
            await asyncio.wait([engine.output_handler])
        engine.shutdown()

    async def answer(
        self,
        chat: ChatType,
        sampling: Mapping[str, Any],
        chat_template: str | None,
        constraint: Mapping[str, Any] | None,
    ) -> GenerateOutput:
        """Answer one conversation.

        Args:
            chat: the conversation.
            sampling: arguments of vLLM's ``SamplingParams``.
            chat_template: in place of the model's own.
            constraint: what the answer must follow, by its format.

        Raises:
            ModelError: there is no answer to this conversation.
            ProcessUnusableError: the engine is dead.
        """
        from vllm import SamplingParams
        from vllm.renderers import ChatParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        must = constraint and StructuredOutputsParams(**{constraint["format"]: constraint["schema"]})
        wanted = {**sampling, "structured_outputs": must, "output_kind": RequestOutputKind.FINAL_ONLY}
        ask = ChatParams(chat_template=chat_template, chat_template_kwargs={"add_generation_prompt": True})
        answering = asyncio.ensure_future(self._generate(chat, ask, SamplingParams(**wanted)))
        try:
            await asyncio.wait({answering, self._death}, return_when=asyncio.FIRST_COMPLETED)
            # What fails together with the engine says less than that it is dead.
            if self._engine.errored and not (answering.done() and answering.exception() is None):
                raise ProcessUnusableError("vLLM's engine is dead: its messages, on stderr, may say why.")
            return _read(await answering)
        finally:
            answering.cancel()

    async def _generate(self, chat: ChatType, ask: Any, sampling: Any) -> Any:
        _, (prompt,) = await self._engine.renderer.render_chat_async([chat], ask)
        number = str(next(self._numbers))
        answers = self._engine.generate(prompt, sampling, number, lora_request=self._lora)
        (answer,) = [each async for each in answers]
        return answer

    async def _watch(self) -> None:
        """End when the engine has died: those who wait for its answers are not told."""
        while not self._engine.errored:  # noqa: ASYNC110 - a flag is all there is
            await asyncio.sleep(LOOK_SECONDS)


def _lora(adapter: HFModel) -> tuple[Any, dict[str, Any]]:
    """Return what is asked for with each request, and what the engine must know from the start."""
    from vllm.lora.request import LoRARequest

    folder = adapter.folder or _fetched(adapter)
    try:
        rank = json.loads((folder / "adapter_config.json").read_bytes())["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"LoRA adapter '{adapter.place}': {folder} has no adapter_config.json with its rank, as PEFT has."
        ) from error
    at_most = next((each for each in _LORA_RANKS if each >= rank), rank)
    return LoRARequest(adapter.name, 1, str(folder)), {"enable_lora": True, "max_lora_rank": at_most}


def _fetched(adapter: HFModel) -> Path:
    """Fetch an adapter from the Hub."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(adapter.place, revision=adapter.revision))
    except Exception as error:
        raise ModelError(f"LoRA adapter '{adapter.place}' cannot be fetched: {error}") from error


def _read(answer: Any) -> GenerateOutput:
    """Return what the engine answered to a request."""
    outputs = sorted(answer.outputs, key=lambda output: output.index)
    if reasons := [each.finish_reason for each in outputs if each.finish_reason in _NOT_ANSWERED]:
        raise ModelError(f"vLLM gave no answer: it ended with '{reasons[0]}'.")
    read: GenerateOutput = {
        "generations": [output.text for output in outputs],
        "statistics": {
            "input_tokens": [len(answer.prompt_token_ids)] + [0] * (len(outputs) - 1),
            "output_tokens": [len(output.token_ids) for output in outputs],
        },
        "finish_reasons": [output.finish_reason for output in outputs],
    }
    if any(output.logprobs for output in outputs):
        read["logprobs"] = [_read_logprobs(output.logprobs or []) for output in outputs]
    return read


def _read_logprobs(tokens: Any) -> list[list[dict[str, Any]]]:
    """Return, for each token, the alternatives with their log probabilities."""
    return [
        [{"token": each.decoded_token, "logprob": each.logprob} for each in alternatives.values()]
        for alternatives in tokens
    ]
