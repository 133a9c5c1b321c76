"""The model's part of a task: requests go in, answers come out, and nothing of the task is known here.

So an answer is stored under the model and the request alone, and is found by every task that asks the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from distill_ray.errors import ModelError
from distill_ray.models.generation_kwargs import MAX_NEW_TOKENS
from distill_ray.models.llm import (
    LLM,
    ChatType,
    arguments_of,
    max_new_tokens_of,
    with_sample_seed,
)
from distill_ray.models.outputs import GenerateOutput, Outcome
from distill_ray.steps.base import Step
from distill_ray.types import Batch, Row, RowFailure, StepColumns, StepInput, Unsigned

_ENDED = frozenset({"stop", "eos_token", "stop_sequence"})
"""How servers say that an answer ended by itself."""

_UNKNOWN = "unknown"
_NO_LIMIT = 2**62
_NOT_EXTRA = frozenset({"generations", "statistics", "finish_reasons", "most_tokens"})


class Answers(Step):
    """Asks a model: each row is a request and the number of the sample of it that is wanted.

    Gives for each of them one row: ``generation``, ``finish_reason`` (``"unknown"`` where the model does not
    say), ``statistics`` (its token counts, None where the model gives none), ``most_tokens`` (how many tokens
    it can have at most; None where that is not known), ``model_name``, and in ``extras`` what else the model
    returns for it. Where there is no request there is no answer: all of them are None.

    How many tokens an answer may have is no part of the signature: an answer that ended by itself serves
    every limit that it fits in.

    Attributes:
        llm: the model without its limit: what is signed.
        asked: the model.
        transient: errors of the model that may pass, beside `TransientError`. What its own retries, if it has
            some, have given up is no such error by itself.
        samples: how many rows that follow each other ask for samples of one request.
    """

    version: ClassVar[str | None] = "1"
    row_wise: ClassVar[bool] = True
    joins_input: ClassVar[bool] = False

    llm: LLM
    asked: Unsigned[LLM]
    transient: Unsigned[tuple[type[Exception], ...]] = ()
    samples: Unsigned[int] = 1

    @classmethod
    def of(cls, llm: LLM, **settings: Any) -> Answers:
        """Make the step that asks a model."""
        kwargs = {name: each for name, each in llm.generation_kwargs.items() if name != MAX_NEW_TOKENS}
        return cls(llm=llm.model_copy(update={"generation_kwargs": kwargs}), asked=llm, **settings)

    @property
    def inputs(self) -> StepColumns:
        """The request and the number of the sample."""
        return ["request", "sample"]

    @property
    def outputs(self) -> StepColumns:
        """What is known of an answer."""
        return ["generation", "finish_reason", "statistics", "most_tokens", "model_name", "extras"]

    @property
    def batches_at_once(self) -> int:
        """As many as the model is to be given at once."""
        return self.asked.batches_at_once(max(1, self.input_batch_size // self.samples), self.samples)

    @property
    def output_limit(self) -> int | None:
        """The tokens that an answer may have; None where the model does not say."""
        return max_new_tokens_of(self.asked)

    def limits_served(self, rows: Sequence[Row]) -> tuple[int, int | None]:
        """Return the smallest and the largest limit under which the model would give this very answer."""
        limit = self.output_limit
        least = _NO_LIMIT if limit is None else limit
        (answer,) = rows
        if answer["finish_reason"] not in _ENDED:
            return least, limit
        most = answer["most_tokens"]
        # One more than it has: with just as many it cannot be told whether its end still fitted.
        return (least if most is None else min(most + 1, least)), None

    def tokens_of(self, rows: Sequence[Row]) -> tuple[int, int]:
        """Return the tokens that the model read and wrote for these answers."""
        counts = [answer["statistics"] or {} for answer in rows]
        return _sum(counts, "input_tokens"), _sum(counts, "output_tokens")

    def load(self) -> None:
        """Load the model."""
        super().load()
        self.asked.load()

    def unload(self) -> None:
        """Unload the model."""
        self.asked.unload()
        super().unload()

    def may_pass(self, error: BaseException) -> bool:
        """Return whether asking again may help."""
        return super().may_pass(error) or isinstance(error, self.transient)

    def process(self, inputs: StepInput) -> Iterator[Batch | RowFailure]:
        """Yield for each row its answer, or why there is none."""
        requests = [(row["request"], row["sample"]) for row in inputs if row["request"] is not None]
        answers = iter(ask_each(self.asked, requests, stop_at_failure=self.on_error == "raise"))
        missing = dict.fromkeys(self.outputs)
        for row in inputs:
            answer = dict(missing) if row["request"] is None else next(answers)
            yield answer if isinstance(answer, RowFailure) else [answer]


@dataclass(frozen=True)
class _Series:
    """Samples of one request that follow each other."""

    request: ChatType
    sample: int
    count: int


def ask(llm: LLM, asked: Sequence[tuple[ChatType, int]]) -> Batch:
    """Ask for one sample of each request, as `ask_each` does.

    Raises:
        Exception: what the first of them failed with.
    """
    answers = ask_each(llm, asked, stop_at_failure=True)
    for answer in answers:
        if isinstance(answer, RowFailure) and answer.error is not None:
            raise answer.error
    return [answer for answer in answers if not isinstance(answer, RowFailure)]


def ask_each(
    llm: LLM, asked: Sequence[tuple[ChatType, int]], *, stop_at_failure: bool
) -> list[Row | RowFailure]:
    """Ask for one sample of each request; those of one request that follow each other are asked for at once.

    With a seed the k-th sample uses ``seed + k``.

    Args:
        llm: the model.
        asked: requests, and the number of the sample of each.
        stop_at_failure: send nothing more once something has failed.
    """
    kwargs = arguments_of(llm)
    series = list(_series(asked))
    calls: dict[tuple[int, int], list[_Series]] = {}
    for each in series:
        first = each.sample if kwargs.get("seed") is not None else 0
        calls.setdefault((first, each.count), []).append(each)
    answers: dict[int, list[Row | RowFailure]] = {}
    failed = False
    for (first, count), members in calls.items():
        arguments = with_sample_seed(kwargs, first) if first else kwargs
        requests = [each.request for each in members]
        outcomes: list[list[Outcome]] = [[None] for _ in requests]
        if not (failed and stop_at_failure):
            outcomes = llm.generate_each(requests, count, stop_at_failure=stop_at_failure, **arguments)
        for each, made in zip(members, outcomes, strict=True):
            samples = count // len(made)
            answers[id(each)] = [answer for outcome in made for answer in _answers(llm, outcome, samples)]
            failed = failed or any(isinstance(answer, RowFailure) for answer in answers[id(each)])
    return [answer for each in series for answer in answers[id(each)]]


def _series(asked: Sequence[tuple[ChatType, int]]) -> Iterator[_Series]:
    start = 0
    for end in range(1, len(asked) + 1):
        request, sample = asked[end - 1]
        if end == len(asked) or asked[end] != (request, sample + 1):
            yield _Series(request, asked[start][1], end - start)
            start = end


def _answers(llm: LLM, outcome: Outcome, count: int) -> Sequence[Row | RowFailure]:
    """What came of a request for some samples: the answers, or for each of them why there is none."""
    if outcome is None or isinstance(outcome, Exception):
        return [RowFailure(outcome)] * count
    if (given := len(outcome["generations"])) != count:
        name = type(llm).__name__
        error = ModelError(f"{name} gave {given} generations for an input, {count} were asked for.")
        return [RowFailure(error)] * count
    return [_answer(llm, outcome, index) for index in range(count)]


def _answer(llm: LLM, output: GenerateOutput, index: int) -> Row:
    extras = {key: _item(values, index) for key, values in output.items() if key not in _NOT_EXTRA}
    return {
        "generation": output["generations"][index],
        "finish_reason": _item(output.get("finish_reasons"), index) or _UNKNOWN,
        "statistics": _statistics(output, index) or None,
        "most_tokens": _most_tokens(output, index),
        "model_name": llm.model_name,
        "extras": extras or None,
    }


def _statistics(output: GenerateOutput, index: int) -> dict[str, int]:
    """Return the token counts of one generation; fewer counts than generations are gone through again."""
    counts: Mapping[str, Any] = output.get("statistics") or {}
    return {key: values[index % len(values)] for key, values in counts.items() if values}


def _most_tokens(output: GenerateOutput, index: int) -> int | None:
    """Return how many tokens a generation can have at most; servers that do not count give 0."""
    statistics: Mapping[str, Any] = output.get("statistics") or {}
    counts: Any = output.get("most_tokens") or statistics.get("output_tokens")
    is_each_counted = isinstance(counts, list) and len(counts) == len(output["generations"])
    return counts[index] or None if is_each_counted else None


def _item(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


def _sum(counts: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(each for count in counts if isinstance(each := count.get(key), int))
