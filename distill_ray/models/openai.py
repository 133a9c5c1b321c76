"""OpenAILLM: any server that speaks OpenAI's chat completions, through the ``openai`` client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr, SecretStr

from distill_ray.errors import ModelError
from distill_ray.models.chat_completion import read_chat_completion
from distill_ray.models.llm import AsyncLLM, ChatType, with_sample_seed
from distill_ray.models.outputs import GenerateOutput, join_outputs
from distill_ray.models.server import BaseUrl, key_in
from distill_ray.models.structured_output import JsonSchema, check_only_schema, response_format_of
from distill_ray.types import RuntimeParameter, Unsigned

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_OPENAI = "https://api.openai.com/v1"


class OpenAILLM(AsyncLLM):
    """A model behind OpenAI's API or any server that speaks it (vLLM, llama.cpp, SGLang, ...).

    Rate limits, server errors, time-outs and broken connections are tried again with exponential backoff and
    jitter, waiting as long as the server's ``Retry-After`` says.

    Attributes:
        model: The name that the server knows the model by.
        base_url: The server; by default ``OPENAI_BASE_URL`` or OpenAI's own.
        api_key: By default ``OPENAI_API_KEY``. Read on the driver and sent to the replicas; never printed,
            saved or signed.
        default_headers: Sent with every request; treated as secrets.
        max_retries: How often a failed request is tried again.
        timeout: Seconds that one try may take.
        structured_output: A JSON schema, or a pydantic model, that the answers must follow.
        salt: Any text. Part of the signature and of nothing else: change it when the server serves another
            model under the same name, and no answer of the old one is used any more.

    Example:
        ```python
        llm = OpenAILLM(
            model="my-model", base_url="http://localhost:8000/v1", generation_kwargs={"temperature": 0.7}
        )
        ```
    """

    version: ClassVar[str | None] = "1"
    loaded_state: ClassVar[frozenset[str]] = frozenset({"_client"})
    samples_in_one_request: ClassVar[bool] = True

    model: str
    base_url: RuntimeParameter[BaseUrl] = Field(
        default_factory=lambda: os.environ.get("OPENAI_BASE_URL") or _OPENAI, validate_default=True
    )
    api_key: Unsigned[RuntimeParameter[SecretStr | None]] = Field(
        default_factory=lambda: key_in("OPENAI_API_KEY"), exclude=True, repr=False
    )
    default_headers: Unsigned[RuntimeParameter[dict[str, SecretStr] | None]] = Field(
        default=None, exclude=True, repr=False
    )
    max_retries: Unsigned[RuntimeParameter[int]] = Field(default=6, ge=0)
    timeout: Unsigned[RuntimeParameter[float]] = Field(default=120, gt=0)
    structured_output: RuntimeParameter[JsonSchema | None] = None
    salt: RuntimeParameter[str | None] = None

    _client: AsyncOpenAI | None = PrivateAttr(default=None)
    _many_choices: bool = PrivateAttr(default=True)

    @property
    def model_name(self) -> str:
        """The name that the server knows the model by."""
        return self.model

    def load(self) -> None:
        """Make the client; no request is sent."""
        import openai

        super().load()
        if self.api_key is None and self.base_url == _OPENAI:
            raise ModelError(
                f"OpenAILLM '{self.model}' needs a key for {_OPENAI}: set OPENAI_API_KEY or give api_key."
            )
        headers = {name: value.get_secret_value() for name, value in (self.default_headers or {}).items()}
        self._client = openai.AsyncOpenAI(
            api_key=self.api_key.get_secret_value() if self.api_key else "none",
            base_url=self.base_url,
            default_headers=headers,
            max_retries=self.max_retries,
            timeout=self.timeout,
        )

    def unload(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._run(self._client.close())
            self._client = None
        super().unload()

    async def agenerate(  # type: ignore[override]  # the arguments are what generation_kwargs may hold
        self,
        input: ChatType,  # noqa: A002
        num_generations: int = 1,
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_p: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        seed: int | None = None,
        stop: str | list[str] | None = None,
        logprobs: bool = False,
        top_logprobs: int | None = None,
        response_format: dict[str, Any] | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Return the output for one conversation, sending one request at a time.

        Args:
            input: The conversation.
            num_generations: How many answers to return. Without a seed they are asked for in one request,
                which counts the prompt once; a server that gives fewer is asked again for the rest.
            max_new_tokens: Where an answer is cut.
            temperature: Randomness; 0 takes the likeliest token.
            top_p: Nucleus sampling.
            frequency_penalty: Against tokens by how often they were used.
            presence_penalty: Against tokens that were used.
            seed: Makes sampling repeatable where the server can; the k-th answer uses ``seed + k``.
            stop: Where an answer ends.
            logprobs: Whether to return log probabilities.
            top_logprobs: How many alternatives to return for each token.
            response_format: As in OpenAI's API; not together with ``structured_output``.
            extra_body: Further fields of the request, for what only this server knows.
        """
        request: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "seed": seed,
            "stop": stop,
            "logprobs": logprobs or None,
            "top_logprobs": top_logprobs,
            "response_format": self._response_format(response_format),
            "extra_body": extra_body,
        }
        request = {name: value for name, value in request.items() if value is not None}
        outputs: list[GenerateOutput] = []
        while (got := sum(len(output["generations"]) for output in outputs)) < num_generations:
            many = num_generations - got if seed is None and self._many_choices else 1
            outputs.append(await self._request(input, many, with_sample_seed(request, got)))
        return join_outputs(outputs)

    async def _request(self, chat: ChatType, count: int, request: dict[str, Any]) -> GenerateOutput:
        """Send one request; a server that refuses several choices is asked for one from then on."""
        import openai

        if self._client is None:
            raise ModelError("not loaded: call load() first.")
        choices = {"n": count} if count > 1 else {}
        try:
            answer = await self._client.chat.completions.create(
                model=self.model,
                messages=chat,
                **choices,
                **request,  # type: ignore[call-overload]
            )
        except openai.BadRequestError as error:
            if count == 1:
                raise ModelError(self._explain(error)) from error
            self._many_choices = False
            return await self._request(chat, 1, request)
        except (openai.OpenAIError, ValueError) as error:
            raise ModelError(self._explain(error)) from error
        return read_chat_completion(answer if isinstance(answer, str) else answer.model_dump())

    def _response_format(self, response_format: dict[str, Any] | None) -> dict[str, Any] | None:
        if self.structured_output is None:
            return response_format
        check_only_schema(response_format)
        return response_format_of(self.structured_output)

    def _explain(self, error: Exception) -> str:
        import openai

        tried = f"tried {self.max_retries + 1} times"
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            return f"{self.base_url} answered {status}{self._tries(status)}: {error.message}"
        if isinstance(error, openai.APITimeoutError):
            return (
                f"{self.base_url} gave no answer within {self.timeout:g} s, {tried}; "
                "raise timeout or lower max_concurrency."
            )
        if isinstance(error, openai.APIConnectionError):
            return f"{self.base_url} cannot be reached, {tried}: {error.__cause__ or error}"
        return f"{self.base_url} gave an answer that cannot be read: {error}"

    def _tries(self, status: int) -> str:
        return f" after {self.max_retries} retries" if status in {408, 409, 429} or status >= 500 else ""
