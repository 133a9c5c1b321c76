"""InferenceEndpointsLLM: models on Hugging Face's servers, or on one's own, through ``huggingface_hub``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import Self

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models.chat_completion import read_chat_completion
from distill_ray.models.llm import AsyncLLM, ChatType, with_sample_seed
from distill_ray.models.outputs import GenerateOutput, join_outputs
from distill_ray.models.retry import may_pass, status_of, with_retries
from distill_ray.models.server import BaseUrl, key_in
from distill_ray.models.structured_output import JsonSchema, check_only_schema, response_format_of
from distill_ray.types import RuntimeParameter, Unsigned

if TYPE_CHECKING:
    from huggingface_hub import AsyncInferenceClient


class InferenceEndpointsLLM(AsyncLLM):
    """A model on Hugging Face's serverless inference, a dedicated endpoint, or any server of that kind.

    Exactly one of ``model_id``, ``endpoint_name`` and ``base_url`` says where the model is. Rate limits,
    server errors, time-outs and broken connections are tried again with exponential backoff and jitter,
    waiting as long as the server's ``Retry-After`` says.

    Attributes:
        model_id: A model of the Hub that serverless inference offers.
        endpoint_name: A dedicated Inference Endpoint.
        endpoint_namespace: The user or organisation that owns it; by default the key's own.
        base_url: The address of a server.
        api_key: By default ``HF_TOKEN``, else the key that ``hf auth login`` left on the node. Read on the
            driver and sent to the replicas; never printed, saved or signed.
        tokenizer_id: The Hub repository of the model's tokenizer: a note for the reader and the signature, as
            the server applies the chat template itself.
        model_display_name: The name under which generations are recorded.
        max_retries: How often a failed request is tried again.
        timeout: Seconds that one try may take.
        structured_output: A JSON schema, or a pydantic model, that the answers must follow. With
            ``endpoint_name`` and ``base_url`` it is for text-generation-inference and llama.cpp; ask other
            servers through ``OpenAILLM``.
        salt: Any text. Part of the signature and of nothing else: change it when the server serves another
            model under the same name, and no answer of the old one is used any more.
    """

    version: ClassVar[str | None] = "1"
    loaded_state: ClassVar[frozenset[str]] = frozenset({"_client"})

    model_id: str | None = None
    endpoint_name: RuntimeParameter[str | None] = None
    endpoint_namespace: RuntimeParameter[str | None] = None
    base_url: RuntimeParameter[BaseUrl | None] = None
    api_key: Unsigned[RuntimeParameter[SecretStr | None]] = Field(
        default_factory=lambda: key_in("HF_TOKEN"), exclude=True, repr=False
    )
    tokenizer_id: str | None = None
    model_display_name: str | None = None
    max_retries: Unsigned[RuntimeParameter[int]] = Field(default=6, ge=0)
    timeout: Unsigned[RuntimeParameter[float]] = Field(default=120, gt=0)
    structured_output: RuntimeParameter[JsonSchema | None] = None
    salt: RuntimeParameter[str | None] = None

    _client: AsyncInferenceClient | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check_one_place(self) -> Self:
        places = {"model_id": self.model_id, "endpoint_name": self.endpoint_name, "base_url": self.base_url}
        given = [name for name, value in places.items() if value]
        if len(given) != 1:
            raise ParameterError(
                "InferenceEndpointsLLM needs exactly one of model_id, endpoint_name and base_url; "
                f"given: {', '.join(given) or 'none'}."
            )
        return self

    @property
    def model_name(self) -> str:
        """The display name, or what says where the model is."""
        return self.model_display_name or self.model_id or self.endpoint_name or self.base_url or ""

    def load(self) -> None:
        """Make the client; a dedicated endpoint's address is asked for.

        Raises:
            ModelError: The endpoint is not known, or not running.
        """
        from huggingface_hub import AsyncInferenceClient

        super().load()
        key = self.api_key.get_secret_value() if self.api_key else None
        place = self.model_id or self.base_url or self._endpoint_url(key)
        self._client = AsyncInferenceClient(model=place, token=key, timeout=self.timeout)

    def unload(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._run(_close(self._client))
            self._client = None
        super().unload()

    async def agenerate(  # type: ignore[override]  # the arguments are what generation_kwargs may hold
        self,
        input: ChatType,  # noqa: A002
        num_generations: int = 1,
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_p: float | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        seed: int | None = None,
        stop_sequences: list[str] | None = None,
        logprobs: bool = False,
        top_logprobs: int | None = None,
        response_format: dict[str, Any] | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Return the output for one conversation, sending one request at a time.

        Args:
            input: The conversation.
            num_generations: How many answers to return.
            max_new_tokens: Where an answer is cut.
            temperature: Randomness; 0 takes the likeliest token.
            top_p: Nucleus sampling.
            frequency_penalty: Against tokens by how often they were used.
            presence_penalty: Against tokens that were used.
            seed: Makes sampling repeatable where the server can; the k-th answer uses ``seed + k``.
            stop_sequences: Where an answer ends.
            logprobs: Whether to return log probabilities.
            top_logprobs: How many alternatives to return for each token.
            response_format: As the server has it; not together with ``structured_output``.
            extra_body: Further fields of the request, for what only this server knows.
        """
        request: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "seed": seed,
            "stop": stop_sequences,
            "logprobs": logprobs or None,
            "top_logprobs": top_logprobs,
            "response_format": self._response_format(response_format),
            "extra_body": extra_body,
        }
        request = {name: value for name, value in request.items() if value is not None}
        return join_outputs(
            [await self._request(input, with_sample_seed(request, k)) for k in range(num_generations)]
        )

    async def _request(self, chat: ChatType, request: dict[str, Any]) -> GenerateOutput:
        client = self._client
        if client is None:
            raise ModelError("not loaded: call load() first.")
        try:
            answer = await with_retries(
                lambda: client.chat_completion(messages=[dict(message) for message in chat], **request),
                self.max_retries,
            )
        except Exception as error:
            raise ModelError(self._explain(error)) from error
        return read_chat_completion(_plain(answer))

    def _endpoint_url(self, key: str | None) -> str:
        import huggingface_hub

        try:
            endpoint = huggingface_hub.get_inference_endpoint(
                self.endpoint_name or "", namespace=self.endpoint_namespace, token=key
            )
        except Exception as error:
            raise ModelError(f"Inference Endpoint '{self.endpoint_name}': {error}") from error
        if endpoint.url is None:
            raise ModelError(
                f"Inference Endpoint '{self.endpoint_name}' is {endpoint.status}, not running: start it."
            )
        return str(endpoint.url)

    def _response_format(self, response_format: dict[str, Any] | None) -> dict[str, Any] | None:
        if self.structured_output is None:
            return response_format
        check_only_schema(response_format)
        if self.model_id is not None:
            return response_format_of(self.structured_output)
        # A server of one's own: text-generation-inference reads "value", llama.cpp "schema".
        return {"type": "json_object", "value": self.structured_output, "schema": self.structured_output}

    def _explain(self, error: Exception) -> str:
        tries = f" after {self.max_retries} retries" if may_pass(error) else ""
        status = status_of(error)
        what = "failed" if status is None else f"answered {status}"
        server = self.model_id or self.endpoint_name or self.base_url
        return f"{server} {what}{tries}: {str(error) or type(error).__name__}"


async def _close(client: Any) -> None:
    await client.close()


def _plain(answer: Any) -> Any:
    """Return the client's answer, nested records of its own, as plain dicts and lists."""
    if isinstance(answer, dict):
        return {name: _plain(value) for name, value in answer.items()}
    return [_plain(item) for item in answer] if isinstance(answer, list) else answer
