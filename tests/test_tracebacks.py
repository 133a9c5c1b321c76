"""Tracebacks of errors that went through our code, the users' and libraries'."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from distill_ray.models import OpenAILLM
from distill_ray.steps import KeepColumns, StepInput, StepOutput, step
from distill_ray.steps.tasks import TextGeneration
from distill_ray.tracebacks import user_traceback


def traceback_of(call: Callable[[], Any]) -> str:
    with pytest.raises(Exception) as caught:
        call()
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # this function is the user's too
    return user_traceback(error)


@step(inputs=["n"], outputs=["n"])
def convert(inputs: StepInput) -> StepOutput:
    try:
        int("one")
    except ValueError as error:
        raise LookupError("not known") from error
    return iter([inputs])


def test_an_error_of_the_users_begins_in_their_code_and_keeps_its_cause() -> None:
    text = traceback_of(partial(convert().process, [{"n": 1}]))
    assert "steps/decorator.py" not in text
    assert "in convert" in text
    assert "ValueError: invalid literal" in text
    assert text.endswith("LookupError: not known")


@pytest.mark.parametrize(
    "declare",
    [
        lambda: KeepColumns(colums=["n"]),  # type: ignore[call-arg]
        lambda: TextGeneration(llm=OpenAILLM(model="m"), template="{{ open"),  # refused within pydantic
    ],
)
def test_what_is_refused_on_purpose_ends_in_the_users_code(declare: Callable[[], Any]) -> None:
    text = traceback_of(declare)
    assert text.count("File ") == 1
    assert "in <lambda>" in text
    assert "distill_ray.errors.ParameterError: " in text


def test_what_is_refused_without_the_users_code_has_no_traceback() -> None:
    task = TextGeneration(llm=OpenAILLM(model="m"))
    assert traceback_of(partial(next, task.process([{"instruction": 1}]))) == ""


def test_an_error_of_ours_alone_is_shown_whole() -> None:
    text = traceback_of(partial(next, KeepColumns(columns=["n"]).process([None])))  # type: ignore[list-item]
    assert "columns/keep.py" in text
    assert "TypeError" in text
