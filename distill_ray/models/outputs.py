"""What a model returns."""

from __future__ import annotations

from typing import Any, TypeAlias

from typing_extensions import TypedDict


class LLMStatistics(TypedDict):
    """Tokens read and written, one number for each generation."""

    input_tokens: list[int]
    output_tokens: list[int]


class _Output(TypedDict):
    generations: list[str | None]


class GenerateOutput(_Output, total=False):
    """What a model returns for one conversation: lists with one item for each generation.

    Only ``generations`` must be there; what a model leaves out is not recorded.
    ``finish_reasons`` says how each ended: ``"stop"`` by itself, ``"length"`` cut at ``max_new_tokens`` or
    at the end of the context, or what else the server calls it. ``logprobs`` is there where it was asked for:
    for each generation and each of its tokens, the alternatives with their log probabilities.
    ``most_tokens`` is there where ``output_tokens`` shares out what a server counted for several generations
    together: how many tokens each of them can have at most.
    """

    statistics: LLMStatistics
    finish_reasons: list[str]
    most_tokens: list[int]
    logprobs: list[list[list[dict[str, Any]]]]


Outcome: TypeAlias = GenerateOutput | Exception | None
"""What became of a request: its output, why it failed, or None: it was not sent since another one failed."""


def join_outputs(outputs: list[GenerateOutput]) -> GenerateOutput:
    """Join the outputs of several requests for one conversation."""
    if len(outputs) == 1:
        return outputs[0]
    joined: GenerateOutput = {"generations": [text for output in outputs for text in output["generations"]]}
    if counted := [output["statistics"] for output in outputs if "statistics" in output]:
        joined["statistics"] = {
            "input_tokens": [n for counts in counted for n in counts["input_tokens"]],
            "output_tokens": [n for counts in counted for n in counts["output_tokens"]],
        }
    if any("finish_reasons" in output for output in outputs):
        joined["finish_reasons"] = [each for output in outputs for each in output.get("finish_reasons", [])]
    if any("most_tokens" in output for output in outputs):
        joined["most_tokens"] = [each for output in outputs for each in _most_tokens(output)]
    if any("logprobs" in output for output in outputs):
        joined["logprobs"] = [item for output in outputs for item in output.get("logprobs", [])]
    return joined


def _most_tokens(output: GenerateOutput) -> list[int]:
    known = output["statistics"]["output_tokens"] if "statistics" in output else []
    return output.get("most_tokens", known)
