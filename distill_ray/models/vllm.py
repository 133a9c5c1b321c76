"""vLLM: a model in Hugging Face's format that vLLM runs in the process of each replica."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from distill_ray.environment import spread_gpus
from distill_ray.errors import ModelError, ParameterError
from distill_ray.models.hf_model import HFModel
from distill_ray.models.llm import AsyncLLM, ChatType
from distill_ray.models.outputs import GenerateOutput, join_outputs
from distill_ray.models.structured_output import Constraint
from distill_ray.models.vllm_engine import Engine
from distill_ray.types import RuntimeParameter, Unsigned


class vLLM(AsyncLLM):  # noqa: N801 - distilabel's name
    """A model that vLLM runs for each replica, on the GPUs that the step's ``resources`` reserve.

    The engine batches continuously: what a replica is given is handed to it at once, up to
    ``max_concurrency`` requests. What identifies the model is the content of its folder, in whatever place it
    lies, or for a Hub repository the commit that its revision stands for when the run begins; the same for
    the tokenizer and for ``lora``.

    Which requests are answered together changes the order of additions in the arithmetic, and may now and
    then change a token, also with ``temperature=0`` or a seed.

    Attributes:
        model: The path of a folder in Hugging Face's format, or a Hub repository: ``"org/name"``.
        revision: The commit, tag or branch of a Hub repository.
        tokenizer: The same for the tokenizer; by default the model's own.
        tokenizer_revision: Its revision.
        tokenizer_mode: vLLM's: ``"auto"``, ``"slow"``, ``"mistral"`` ...
        dtype: The type of weights and activations: ``"auto"``, ``"bfloat16"``, ``"float32"`` ...
        quantization: How the weights are quantized, by vLLM's names; by default as the model's files say.
        trust_remote_code: Whether the model may bring code of its own.
        max_model_len: Tokens that one conversation may have, its answer included; by default the model's.
        chat_template: A Jinja template in place of the model's own.
        structured_output: What the answers must follow: ``{"format": "json", "schema": ...}``, a JSON schema,
            a pydantic model, or ``{"format": "regex", "schema": "..."}``.
        lora: The path of a folder with a LoRA adapter in PEFT's format, or a Hub repository.
        lora_revision: Its revision.
        seed: The engine's seed: of the answers that have none of their own.
        extra_kwargs: Further arguments of vLLM's ``AsyncEngineArgs``.
        tensor_parallel_size: GPUs that share each layer; by default all that the replica has, divided by
            ``pipeline_parallel_size``.
        pipeline_parallel_size: Groups of layers that follow each other on GPUs of their own.
        gpu_memory_utilization: The share of each GPU's memory that vLLM takes.
        max_num_seqs: Conversations in one step of the engine; by default vLLM's choice.
        enforce_eager: Whether to do without compiled graphs: starts sooner, answers more slowly.
        verbose: Whether vLLM writes its messages to stderr.
    """

    version: ClassVar[str | None] = "1"
    loaded_state: ClassVar[frozenset[str]] = frozenset({"_engine"})
    samples_in_one_request: ClassVar[bool] = True

    model: Unsigned[str]  # the three places are signed by what they stand for, see `signed_state`
    revision: Unsigned[str | None] = None
    tokenizer: Unsigned[str | None] = None
    tokenizer_revision: Unsigned[str | None] = None
    lora: Unsigned[RuntimeParameter[str | None]] = None
    lora_revision: Unsigned[str | None] = None

    tokenizer_mode: RuntimeParameter[str] = "auto"
    dtype: RuntimeParameter[str] = "auto"
    quantization: RuntimeParameter[str | None] = None
    trust_remote_code: bool = False
    max_model_len: RuntimeParameter[int | None] = Field(default=None, ge=16)
    chat_template: RuntimeParameter[str | None] = None
    structured_output: RuntimeParameter[Constraint | None] = None
    seed: RuntimeParameter[int] = 0
    extra_kwargs: RuntimeParameter[dict[str, Any]] = Field(default_factory=dict)

    tensor_parallel_size: Unsigned[RuntimeParameter[int | None]] = Field(default=None, ge=1)
    pipeline_parallel_size: Unsigned[RuntimeParameter[int]] = Field(default=1, ge=1)
    gpu_memory_utilization: Unsigned[RuntimeParameter[float]] = Field(default=0.9, gt=0, le=1)
    max_num_seqs: Unsigned[RuntimeParameter[int | None]] = Field(default=None, ge=1)
    enforce_eager: Unsigned[RuntimeParameter[bool]] = False
    verbose: Unsigned[RuntimeParameter[bool]] = False
    max_concurrency: Unsigned[RuntimeParameter[int]] = Field(default=256, ge=1)

    _engine: Engine | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        """The repository, or the folder's name; with that of the adapter behind a ``+``."""
        return "+".join(each.name for each in (self._weights, self._adapter) if each is not None)

    def signed_state(self) -> dict[str, Any]:
        """Return what the model, the tokenizer and the adapter are; no weights are fetched.

        Raises:
            ModelError: One is a path where the driver finds no folder.
        """
        places = {"model": self._weights, "tokenizer": self._own_tokenizer, "lora": self._adapter}
        return {name: place.identity() for name, place in places.items() if place is not None}

    def blind_spots(self) -> list[str]:
        """Say where the Hub's commit is not known."""
        places = [each for each in (self._weights, self._own_tokenizer, self._adapter) if each is not None]
        unseen = "the Hub cannot be asked for its commit, so other weights under this name do not count."
        return [f"vLLM '{place.place}': {unseen}" for place in places if place.is_unseen]

    @property
    def _weights(self) -> HFModel:
        return HFModel(self.model, self.revision)

    @property
    def _own_tokenizer(self) -> HFModel | None:
        return None if self.tokenizer is None else HFModel(self.tokenizer, self.tokenizer_revision)

    @property
    def _adapter(self) -> HFModel | None:
        return None if self.lora is None else HFModel(self.lora, self.lora_revision)

    def load(self) -> None:
        """Start the engine, which fetches the weights where needed.

        Raises:
            ModelError: vLLM is not installed, or the model cannot be loaded.
            ParameterError: ``extra_kwargs`` has an unknown name, or vLLM refuses a value.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ModelError("vLLM is not installed here: pip install 'distill-ray[vllm]' on every node.")
        if not self.verbose:
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        self._engine = self._run(Engine.start(self.engine_arguments(), self._adapter))

    def unload(self) -> None:
        """End the engine and its processes, then the event loop."""
        if self._engine is not None:
            self._run(self._engine.stop())
            self._engine = None
        super().unload()

    def engine_arguments(self) -> dict[str, Any]:
        """Return what vLLM is started with in this process."""
        tensor, backend = self._parallelism()
        optional = {
            "tokenizer": self.tokenizer,
            "quantization": self.quantization,
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "distributed_executor_backend": backend,
        }
        return {
            "model": self.model,
            "revision": self.revision,
            "tokenizer_revision": self.tokenizer_revision,
            "tokenizer_mode": self.tokenizer_mode,
            "dtype": self.dtype,
            "trust_remote_code": self.trust_remote_code,
            "seed": self.seed,
            "tensor_parallel_size": tensor,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "enforce_eager": self.enforce_eager,
            "disable_log_stats": True,
            **{name: value for name, value in optional.items() if value is not None},
            **self.extra_kwargs,
        }

    def _parallelism(self) -> tuple[int, str | None]:
        """Return how many GPUs share each layer, and how vLLM is to start its processes on them."""
        spread, visible = spread_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
        gpus = spread or len([device for device in visible.split(",") if device.strip()])
        tensor = self.tensor_parallel_size or max(1, gpus // self.pipeline_parallel_size)
        if spread:
            return tensor, "ray"
        return tensor, "mp" if tensor * self.pipeline_parallel_size > 1 else None

    async def agenerate(  # type: ignore[override]
        self,
        input: ChatType,  # noqa: A002 - distilabel's name
        num_generations: int = 1,
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = -1,
        min_p: float = 0.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: str | list[str] | None = None,
        stop_token_ids: list[int] | None = None,
        include_stop_str_in_output: bool = False,
        skip_special_tokens: bool = True,
        logprobs: int | None = None,
        extra_sampling_params: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Answer one conversation.

        Args:
            input: The conversation.
            num_generations: How many answers to return; each is sampled.
            max_new_tokens: Tokens that an answer may have.
            temperature: How freely to sample; 0 takes the likeliest token.
            top_p: Sample from the likeliest tokens that have this share of the probability together.
            top_k: Sample from this many of the likeliest tokens; -1 is off.
            min_p: Leave out tokens less likely than this share of the likeliest; 0 is off.
            presence_penalty: Against tokens that were used.
            frequency_penalty: Against tokens by how often they were used.
            repetition_penalty: Against tokens of the conversation; 1 is off.
            seed: Makes sampling repeatable; the k-th answer uses ``seed + k``.
            stop: Where an answer ends.
            stop_token_ids: Tokens at which an answer ends.
            include_stop_str_in_output: Whether to keep what an answer ended at.
            skip_special_tokens: Whether to leave special tokens out of the answer.
            logprobs: How many alternatives to return for each token, with their log probabilities.
            extra_sampling_params: Further arguments of vLLM's ``SamplingParams``.
        """
        if self._engine is None:
            raise ModelError(f"vLLM '{self.model}' is not loaded: call load() first.")
        sampling = {
            "n": num_generations,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
            "stop": stop,
            "stop_token_ids": stop_token_ids,
            "include_stop_str_in_output": include_stop_str_in_output,
            "skip_special_tokens": skip_special_tokens,
            "logprobs": logprobs,
        }
        return await self._ask(input, sampling, extra_sampling_params or {})

    async def _ask(self, chat: ChatType, sampling: dict[str, Any], extra: dict[str, Any]) -> GenerateOutput:
        assert self._engine is not None
        if twice := sorted(sampling.keys() & extra.keys()):
            raise ParameterError(f"extra_sampling_params of vLLM: '{twice[0]}' has an argument of its own.")
        wanted, count = {**extra, **sampling}, sampling["n"]
        if not sampling["temperature"]:  # all samples are equal, and vLLM refuses to make several
            wanted["n"] = 1
        output = await self._engine.answer(chat, wanted, self.chat_template, self.structured_output)
        return join_outputs([output] * (count // wanted["n"]))
