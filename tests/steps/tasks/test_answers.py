from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from distill_ray.cache.units import serves
from distill_ray.errors import ModelError
from distill_ray.models import LLM, ChatType, GenerateOutput
from distill_ray.steps.signing import step_function
from distill_ray.steps.tasks.answers import Answers, ask
from distill_ray.types import Row, RowFailure


def said(text: str) -> ChatType:
    return [{"role": "user", "content": text}]


class Recording(LLM):
    """Remembers its calls, and answers as it was told to."""

    exclude_from_signature: frozenset[str] = frozenset({"calls", "output"})
    calls: list[Any] = Field(default_factory=list)
    output: dict[str, Any] = Field(default_factory=dict)

    @property
    def model_name(self) -> str:
        return "recording"

    def generate(  # type: ignore[override]
        self,
        inputs: list[ChatType],
        num_generations: int = 1,
        max_new_tokens: int = 16,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> list[GenerateOutput]:
        self.calls.append(([chat[0]["content"] for chat in inputs], num_generations, seed))
        texts = [[f"{chat[0]['content']}{k}" for k in range(num_generations)] for chat in inputs]
        return [{"generations": each, **self.output} for each in texts]  # type: ignore[typeddict-item]


def recording(output: dict[str, Any] | None = None, **kwargs: Any) -> Recording:
    return Recording(output=output or {}, generation_kwargs=kwargs)


def answers(step: Answers, *asked: tuple[ChatType | None, int]) -> list[Row]:
    """The answers to some requests, none of which fails."""
    made = step.process([{"request": request, "sample": sample} for request, sample in asked])
    return [row for rows in made if not isinstance(rows, RowFailure) for row in rows]


def answer(llm: LLM) -> Row:
    """The answer to one request."""
    (row,) = answers(Answers.of(llm), (said("a"), 0))
    return row


def test_samples_of_a_request_are_asked_for_in_one_call_with_those_of_others() -> None:
    llm = recording()
    found = ask(llm, [(said(text), sample) for text in "ab" for sample in range(3)])
    assert llm.calls == [(["a", "b"], 3, None)]
    assert [each["generation"] for each in found] == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_requests_of_which_other_samples_are_wanted_share_a_call_where_their_number_is_the_same() -> None:
    llm = recording()
    asked = [(said("a"), 1), (said("a"), 2), (said("b"), 0), (said("c"), 2), (said("d"), 0), (said("d"), 1)]
    found = ask(llm, asked)
    assert llm.calls == [(["a", "d"], 2, None), (["b", "c"], 1, None)]
    assert [each["generation"] for each in found] == ["a0", "a1", "b0", "c0", "d0", "d1"]


def test_equal_requests_are_asked_one_by_one() -> None:
    llm = recording()
    ask(llm, [(said("a"), 0)] * 3)
    assert llm.calls == [(["a"] * 3, 1, None)]


def test_with_a_seed_the_kth_sample_has_the_kth_seed_after_it() -> None:
    llm = recording(seed=7)
    ask(llm, [(said("a"), 0), (said("a"), 1), (said("b"), 1), (said("b"), 2), (said("c"), 2)])
    assert llm.calls == [(["a"], 2, 7), (["b"], 2, 8), (["c"], 1, 9)]


def test_no_request_has_no_answer_and_is_not_asked() -> None:
    llm = recording()
    none, answered = answers(Answers.of(llm), (None, 0), (said("a"), 0))
    assert set(none) == set(answered)
    assert set(none.values()) == {None}
    assert answered["generation"] == "a0"
    assert llm.calls == [(["a"], 1, None)]


class Choosy(Recording):
    """Gives one answer too few to what is said twice, and none where something bad is said."""

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        outputs = super().generate(inputs, num_generations, **kwargs)
        if any(chat[0]["content"] == "bad" for chat in inputs):
            raise ValueError("that is bad")
        for chat, output in zip(inputs, outputs, strict=True):
            if chat[0]["content"] == "twice":
                output["generations"].pop()
        return outputs


def outcomes(*asked: tuple[str, int], on_error: Any) -> list[Any]:
    """The answers to requests, and what was said where there is none."""
    step = Answers.of(Choosy(), on_error=on_error)
    made = step.process([{"request": said(text), "sample": sample} for text, sample in asked])
    return [
        each.error and str(each.error) if isinstance(each, RowFailure) else each[0]["generation"]
        for each in made
    ]


def test_what_fails_leaves_the_other_answers_alone() -> None:
    asked = [("a", 0), ("bad", 0), ("twice", 0), ("twice", 1), ("b", 0), ("b", 1)]
    few = "Choosy gave 1 generations for an input, 2 were asked for."
    assert outcomes(*asked, on_error="null") == ["a0", "that is bad", few, few, "b0", "b1"]


def test_where_a_failure_ends_the_run_nothing_more_is_asked() -> None:
    asked = [("a", 0), ("twice", 0), ("twice", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 1), ("c", 2)]
    few = "Choosy gave 1 generations for an input, 2 were asked for."
    assert outcomes(*asked, on_error="raise") == ["a0", few, few, "b0", "b1", None, None, None]
    with pytest.raises(ModelError, match="gave 1 generations"):
        ask(Choosy(), [(said(text), sample) for text, sample in asked])


def test_what_the_model_tells_of_an_answer_is_kept() -> None:
    llm = recording(
        {
            "statistics": {"input_tokens": [3], "output_tokens": [5]},
            "finish_reasons": ["length"],
            "logprobs": [[[{"token": "a", "logprob": -1.0}]]],
        }
    )
    assert answer(llm) == {
        "generation": "a0",
        "finish_reason": "length",
        "statistics": {"input_tokens": 3, "output_tokens": 5},
        "most_tokens": 5,
        "model_name": "recording",
        "extras": {"logprobs": [[{"token": "a", "logprob": -1.0}]]},
    }
    assert Answers.of(llm).tokens_of([answer(llm), answer(llm)]) == (6, 10)


def test_what_the_model_does_not_tell_is_unknown() -> None:
    found = answer(recording())
    assert found["finish_reason"] == "unknown"
    assert found["statistics"] is found["most_tokens"] is found["extras"] is None
    assert Answers.of(recording()).tokens_of([found]) == (0, 0)


@pytest.mark.parametrize(
    ("reason", "tokens", "served"),
    [
        ("stop", 5, (6, None)),
        ("stop", 20, (20, None)),  # it just fitted
        ("stop", 0, (20, None)),  # not counted: it may have had up to 20
        ("stop", None, (20, None)),
        ("eos_token", 5, (6, None)),
        ("length", 20, (20, 20)),
        ("length", 5, (20, 20)),  # at the end of the context
        ("content_filter", 5, (20, 20)),
        (None, 5, (20, 20)),
    ],
)
def test_an_answer_serves_the_limits_under_which_it_would_be_the_same(
    reason: str | None, tokens: int | None, served: tuple[int, int | None]
) -> None:
    output: dict[str, Any] = {} if reason is None else {"finish_reasons": [reason]}
    if tokens is not None:
        output["statistics"] = {"input_tokens": [1], "output_tokens": [tokens]}
    step = Answers.of(recording(output, max_new_tokens=20))
    rows = answers(step, (said("a"), 0))
    assert step.limits_served(rows) == served


def test_where_a_server_counted_several_answers_together_each_may_have_had_all_the_tokens() -> None:
    output = {
        "finish_reasons": ["stop", "stop"],
        "statistics": {"input_tokens": [3, 0], "output_tokens": [6, 5]},
        "most_tokens": [11, 11],
    }
    step = Answers.of(recording(output, max_new_tokens=20))
    rows = answers(step, (said("a"), 0), (said("a"), 1))
    assert [step.limits_served([row]) for row in rows] == [(12, None)] * 2
    assert step.tokens_of(rows) == (3, 11)


def test_the_limit_in_force_is_the_one_given_or_the_models_own() -> None:
    assert Answers.of(recording(max_new_tokens=20)).output_limit == 20
    assert Answers.of(recording()).output_limit == 16


def test_a_model_without_a_limit_serves_those_who_ask_for_none(echo: Any) -> None:
    step = Answers.of(echo())
    assert step.output_limit is None
    rows = answers(step, (said("abc"), 0))
    assert step.limits_served(rows) == (4, None)  # it ended by itself
    rows = answers(Answers.of(recording()), (said("abc"), 0))
    least, most = step.limits_served(rows)  # unknown how it ended
    assert least > 10**9
    assert most is None


def test_the_signature_is_the_models_without_its_limit() -> None:
    def signature(**kwargs: Any) -> str:
        return step_function(Answers.of(recording(**kwargs))).signature

    assert signature(max_new_tokens=20) == signature(max_new_tokens=30) == signature()
    assert signature(temperature=0.5) != signature()
    assert signature(seed=1, max_new_tokens=3) == signature(seed=1) != signature()


class Seeded(LLM):
    """Answers with the seed of each sample, and with as many words as it is told to, cut at the limit."""

    words: int = 1

    @property
    def model_name(self) -> str:
        return "seeded"

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1, seed: int = 0, max_new_tokens: int = 100
    ) -> list[GenerateOutput]:
        used = min(self.words, max_new_tokens)
        return [
            {
                "generations": [f"{chat[0]['content']} {seed + k} {used}" for k in range(num_generations)],
                "statistics": {
                    "input_tokens": [1] * num_generations,
                    "output_tokens": [used] * num_generations,
                },
                "finish_reasons": ["stop" if self.words < max_new_tokens else "length"] * num_generations,
            }
            for chat in inputs
        ]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=12))
def test_each_sample_is_what_asking_for_it_alone_gives(wanted: list[tuple[str, int]]) -> None:
    llm = Seeded(generation_kwargs={"seed": 5})
    found = ask(llm, [(said(text), sample) for text, sample in wanted])
    assert [each["generation"] for each in found] == [f"{text} {5 + sample} 1" for text, sample in wanted]


@given(st.integers(0, 12), st.integers(1, 12), st.integers(1, 12))
def test_an_answer_that_serves_a_limit_is_the_one_that_the_model_gives_under_it(
    words: int, limit: int, other: int
) -> None:
    def under(limit: int) -> tuple[Row, Answers]:
        llm = Seeded(words=words, generation_kwargs={"max_new_tokens": limit})
        return answer(llm), Answers.of(llm)

    stored, step = under(limit)
    wanted, _ = under(other)
    if serves(step.limits_served([stored]), other):
        assert stored == wanted
    elif words:  # where there are none it cannot be told whether they were counted
        assert "length" in (stored["finish_reason"], wanted["finish_reason"])
