"""LlamaCppLLM: a GGUF model in this process, on CPU or GPU, through llama.cpp (``xllamacpp``)."""

from __future__ import annotations

import os
import secrets
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models import local_model
from distill_ray.models.chat_completion import read_chat_completion
from distill_ray.models.hub_commit import hub_commit
from distill_ray.models.llm import LLM, ChatType, with_sample_seed
from distill_ray.models.outputs import GenerateOutput, Outcome, join_outputs
from distill_ray.models.structured_output import JsonSchema, response_format_of
from distill_ray.models.weights_digest import file_sha256
from distill_ray.types import RuntimeParameter, Unsigned


class LlamaCppLLM(LLM):
    """A GGUF model that llama.cpp runs in the process of each replica.

    With ``temperature=0`` or a seed the answers are the same every time, whatever the batch and
    ``n_parallel``. What identifies the model is the SHA-256 of its weights and the name of their file, in
    whatever folder it lies; for a Hub repository the commit that its revision stands for when the run begins.

    Attributes:
        model: A named model (``"smollm2-135m-instruct"``), the path of a GGUF file, or a Hub repository:
            ``"org/name"`` or ``"org/name/file.gguf"``.
        revision: The commit, tag or branch of a Hub repository.
        n_ctx: Tokens that one conversation may have, its answer included.
        chat_template: A Jinja template in place of the one in the file.
        n_parallel: Conversations answered at once; each takes memory for ``n_ctx`` tokens.
        n_threads: CPU threads; by default ``OMP_NUM_THREADS`` (which Ray sets to the replica's CPUs), or the
            CPUs that this process may use.
        n_gpu_layers: Layers put on the GPU; -1 for as many as fit.
        verbose: Whether llama.cpp writes its messages to stderr.
        structured_output: A JSON schema, or a pydantic model, that the answers must follow.
        extra_kwargs: Further settings by the names of ``xllamacpp.CommonParams``.
    """

    version: ClassVar[str | None] = "1"
    loaded_state: ClassVar[frozenset[str]] = frozenset({"_server", "_threads"})

    model: Unsigned[str] = "smollm2-135m-instruct"  # signed by what it stands for, see `signed_state`
    revision: Unsigned[str | None] = None
    n_ctx: RuntimeParameter[int] = Field(default=2048, ge=16)
    chat_template: RuntimeParameter[str | None] = None
    n_parallel: Unsigned[RuntimeParameter[int]] = Field(default=4, ge=1)
    n_threads: Unsigned[RuntimeParameter[int | None]] = Field(default=None, ge=1)
    n_gpu_layers: Unsigned[RuntimeParameter[int]] = -1
    verbose: Unsigned[RuntimeParameter[bool]] = False
    structured_output: RuntimeParameter[JsonSchema | None] = None
    extra_kwargs: RuntimeParameter[dict[str, Any]] = Field(default_factory=dict)

    _server: Any = PrivateAttr(default=None)
    _threads: ThreadPoolExecutor | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        """The model as it was named; of a path the name of the file."""
        return self.model if self._repository or self._named else Path(self.model).name

    def signed_state(self) -> dict[str, Any]:
        """Return the model's name with the weights' SHA-256, or the Hub's commit; no weights are fetched.

        Raises:
            ModelError: The model is a path where the driver finds no file.
        """
        if self._named is not None:
            return {"model": self.model, "sha256": self._named.sha256}
        if self._repository is not None:
            commit = hub_commit(self._repository, self.revision)
            return {"model": self.model, "commit": commit or self.revision}
        return {"model": self.model_name, "sha256": file_sha256(local_model.resolve(self.model))}

    def blind_spots(self) -> list[str]:
        """Say where the Hub's commit is not known."""
        if self._named is not None or self._repository is None or hub_commit(self._repository, self.revision):
            return []
        unseen = "the Hub cannot be asked for its commit, so other weights under this name do not count."
        return [f"LlamaCppLLM '{self.model}': {unseen}"]

    @property
    def _named(self) -> local_model.NamedModel | None:
        return local_model.NAMED_MODELS.get(self.model)

    @property
    def _repository(self) -> str | None:
        """The Hub repository that the weights come from, if they are not on this machine under that name."""
        return local_model.hub_repository(self.model) if local_model.find_local(self.model) is None else None

    def load(self) -> None:
        """Find or fetch the weights and load them.

        Raises:
            ModelError: The weights are not found or cannot be loaded.
            ParameterError: ``extra_kwargs`` has an unknown name.
        """
        import xllamacpp

        path = local_model.resolve(self.model, self.revision)
        try:
            self._server = xllamacpp.Server(self._params(str(path)))
        except RuntimeError as error:
            raise ModelError(
                f"llama.cpp cannot load {path}: {error} Is it a GGUF file, and is there memory for "
                f"n_parallel={self.n_parallel} conversations of n_ctx={self.n_ctx} tokens? "
                "verbose=True shows llama.cpp's messages."
            ) from error
        self._threads = ThreadPoolExecutor(self.n_parallel, thread_name_prefix="llama-cpp")

    def unload(self) -> None:
        """Drop the weights."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._threads = None
        self._server = None

    def generate(  # type: ignore[override]  # the arguments are what generation_kwargs may hold
        self,
        inputs: list[ChatType],
        num_generations: int = 1,
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 40,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        seed: int | None = None,
        stop: str | list[str] | None = None,
        logprobs: bool = False,
        top_logprobs: int = 1,
    ) -> list[GenerateOutput]:
        """Return one output for each conversation, in their order.

        Args:
            inputs: The conversations.
            num_generations: How many answers to return for each.
            max_new_tokens: Where an answer is cut.
            temperature: Randomness; 0 takes the likeliest token.
            top_p: Nucleus sampling; 1 is off.
            top_k: Sample from this many of the likeliest tokens; 0 is off.
            min_p: Leave out tokens less likely than this share of the likeliest; 0 is off.
            repeat_penalty: Against tokens that were used lately; 1 is off.
            frequency_penalty: Against tokens by how often they were used.
            presence_penalty: Against tokens that were used.
            seed: Makes sampling repeatable; the k-th answer uses ``seed + k``.
            stop: Where an answer ends.
            logprobs: Whether to return log probabilities.
            top_logprobs: How many alternatives to return for each token.
        """
        request: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "repeat_penalty": repeat_penalty,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "cache_prompt": False,  # a prompt's answer must not depend on the prompts before it
        }
        if seed is not None:
            request["seed"] = seed
        if stop is not None:
            request["stop"] = stop
        if logprobs:
            request |= {"logprobs": True, "top_logprobs": top_logprobs}
        if self.structured_output is not None:
            request["response_format"] = response_format_of(self.structured_output)
        samples = [with_sample_seed(request, k) for k in range(num_generations)]
        answers = self._answer_all(
            [(index, sample) for index in range(len(inputs)) for sample in samples], inputs
        )
        return [
            join_outputs(answers[start : start + num_generations])
            for start in range(0, len(answers), num_generations)
        ]

    def generate_each(
        self,
        inputs: list[ChatType],
        num_generations: int = 1,
        *,
        stop_at_failure: bool,
        **generation_kwargs: Any,
    ) -> list[list[Outcome]]:
        """Answer each conversation by itself, over all slots: one too long for the context fails alone.

        See `LLM.generate_each`.
        """
        failed = threading.Event()

        def outcomes(chat: ChatType) -> list[Outcome]:
            if stop_at_failure and failed.is_set():
                return [None]
            try:
                return [*self.generate_outputs([chat], num_generations, **generation_kwargs)]
            except Exception as error:
                failed.set()
                return [error]

        askers = ThreadPoolExecutor(self.n_parallel, thread_name_prefix="llama-cpp-asker")
        try:
            return list(askers.map(outcomes, inputs))
        finally:
            askers.shutdown(cancel_futures=True)

    def _answer_all(
        self, requests: list[tuple[int, dict[str, Any]]], inputs: list[ChatType]
    ) -> list[GenerateOutput]:
        """Answer over all slots; the first failure keeps those from starting that have not."""
        if self._threads is None:
            raise ModelError(f"LlamaCppLLM '{self.model}' is not loaded: call load() first.")
        futures = [self._threads.submit(self._answer, index, inputs, request) for index, request in requests]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
        for future in futures:
            if not future.cancelled() and (error := future.exception()) is not None:
                raise error
        return [future.result() for future in futures]

    def _answer(self, index: int, inputs: list[ChatType], request: dict[str, Any]) -> GenerateOutput:
        where = f"LlamaCppLLM '{self.model}', input {index} of {len(inputs)}"
        try:
            answer = self._server.handle_chat_completions({"messages": inputs[index], **request})
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"{where}: {error}") from error
        if "error" in answer:
            raise ModelError(f"{where}: {answer['error'].get('message', answer['error'])}")
        return read_chat_completion(answer)

    def _params(self, path: str) -> Any:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx = self.n_ctx * self.n_parallel
        params.n_parallel = self.n_parallel
        params.n_gpu_layers = self.n_gpu_layers
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.n_threads or _available_cpus()
        params.verbosity = 3 if self.verbose else 0
        params.cache_prompt = False
        params.cache_idle_slots = False
        params.cache_ram_mib = 0
        # It listens on a free port of the loopback device; nobody else shall use it.
        params.port, params.n_threads_http, params.ui = 0, 1, False
        params.api_keys = [secrets.token_hex(16)]
        if self.chat_template is not None:
            params.chat_template = self.chat_template
        for name, value in self.extra_kwargs.items():
            if name.startswith("_") or not hasattr(params, name):
                raise ParameterError(f"extra_kwargs of LlamaCppLLM: xllamacpp.CommonParams has no '{name}'.")
            setattr(params, name, value)
        return params


def _available_cpus() -> int:
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        return int(threads)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
