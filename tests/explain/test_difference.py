"""What differs between two step functions is sorted into what a user would call it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field

from distill_ray.explain.difference import CodePiece, code_pieces, function_reasons
from distill_ray.models import LlamaCppLLM, OpenAILLM
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from distill_ray.steps.base import BaseStep
from distill_ray.steps.signing import step_function
from distill_ray.steps.tasks import TextGeneration


class Versioned(Step):
    version = "1"

    labels: list[str] = Field(default_factory=list)
    rule: Any = None

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Later(Versioned):
    version = "2"


def text_generation(model: Any) -> TextGeneration:
    return TextGeneration(name="ask", llm=model)


def told(old: BaseStep, new: BaseStep) -> list[str]:
    before, now = step_function(old), step_function(new)
    stored = json.loads(json.dumps(before.preimage))
    return [str(reason) for reason in function_reasons(stored, now.preimage, before.code, now.code)]


def first_rule(row: dict[str, Any]) -> bool:
    return bool(row)


def second_rule(row: dict[str, Any]) -> bool:
    return not row


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            text_generation(OpenAILLM(model="a", generation_kwargs={"temperature": 0.7})),
            text_generation(OpenAILLM(model="a", generation_kwargs={"temperature": 0.8})),
            ["CONFIG: llm.generation_kwargs.temperature: 0.7 -> 0.8"],
        ),
        (
            text_generation(OpenAILLM(model="a")),
            text_generation(OpenAILLM(model="b")),
            ['MODEL: llm.model: "a" -> "b"'],
        ),
        (
            text_generation(OpenAILLM(model="a")),
            text_generation(OpenAILLM(model="a", base_url="http://here/v1")),
            ['MODEL: llm.base_url: "https://api.openai.com/v1" -> "http://here/v1"'],
        ),
        (
            Versioned(input_mappings={"text": "prompt"}),
            Versioned(input_mappings={"text": "answer"}),
            ['CONFIG: input_mappings.text: "prompt" -> "answer"'],
        ),
        (
            Versioned(),
            Versioned(output_mappings={"text": "answer"}),
            ['CONFIG: output_mappings.text: not set -> "answer"'],
        ),
        (
            Versioned(labels=["a"]),
            Versioned(labels=["a", "b"]),
            ['CONFIG: labels: ["a"] -> ["a", "b"]'],
        ),
        (
            LoadDataFromDicts(data=[{"n": 1}]),
            LoadDataFromDicts(data=[{"n": 1}, {"n": 2}]),
            ["DATA: 1 -> 2 rows"],
        ),
        (
            LoadDataFromDicts(data=[{"n": n} for n in range(1000)]),
            LoadDataFromDicts(data=[{"n": n + 1} for n in range(1000)]),
            ["DATA: other rows than before, 1,000 of them"],
        ),
        (Versioned(rule=first_rule), Versioned(rule=second_rule), ["CODE: first_rule, second_rule"]),
    ],
)  # fmt: skip
def test_a_change_is_named_with_what_it_was_and_is(old: BaseStep, new: BaseStep, expected: list[str]) -> None:
    assert told(old, new) == expected


def test_another_class_of_model_is_another_model() -> None:
    reasons = told(text_generation(OpenAILLM(model="a")), text_generation(LlamaCppLLM(model="org/name")))
    assert any(reason.startswith("MODEL") and "OpenAILLM" in reason for reason in reasons)


def test_a_version_of_the_class_is_its_code() -> None:
    (reason,) = told(Versioned(), Later())
    assert reason.startswith("CODE")
    assert 'class version: "1" -> "2"' in reason


def test_long_values_are_cut_in_a_sentence_and_whole_in_the_data() -> None:
    before, now = step_function(Versioned()), step_function(Versioned(labels=["x" * 500]))
    (reason,) = function_reasons(before.preimage, now.preimage, before.code, now.code)
    assert len(reason.text) < 200
    assert reason.changes[0].new == ["x" * 500]


def test_more_than_three_changes_are_counted() -> None:
    mappings = {f"column_{number}": f"other_{number}" for number in range(5)}
    (reason,) = told(Versioned(), Versioned(input_mappings=mappings))
    assert reason.endswith("and 2 more")


def test_equal_functions_have_nothing_to_say() -> None:
    assert told(Versioned(), Versioned()) == []


def test_code_that_is_new_or_gone_is_a_diff_against_nothing() -> None:
    (piece,) = code_pieces({"helper": "def helper ( ) : return 1"}, {})
    assert piece == CodePiece("helper", "def helper ( ) : return 1", None)
    assert piece.diff.splitlines()[:2] == ["--- helper (before)", "+++ /dev/null"]


def test_of_a_value_only_a_digest_is_kept_so_that_its_diff_is_a_sentence() -> None:
    assert CodePiece("helper: value of LIMIT", "ab", "cd").diff == "helper: value of LIMIT changed"
    assert CodePiece("helper: value of LIMIT", None, "cd").diff == "helper: value of LIMIT is new"
