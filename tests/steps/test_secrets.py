"""What a step says is free of its secrets, wherever in its parameters they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field, Secret, SecretBytes, SecretStr

from distill_ray.credentials import MASK
from distill_ray.steps import Step, StepInput, StepOutput
from distill_ray.steps.secrets import without_secrets
from distill_ray.types import Unsigned


class Inner(BaseModel):
    key: Any


@dataclass
class Plain:
    key: Any


@pytest.mark.parametrize(
    "holder",
    [
        Inner(key=SecretStr("hidden")),
        Inner(key={"a": [(SecretBytes(b"hidden"),)]}),
        Plain(Inner(key=Secret[str]("hidden"))),
        {SecretStr("other"), SecretStr("hidden")},
    ],
)
def test_a_secret_is_masked_wherever_it_is(holder: Any) -> None:
    assert without_secrets("a hidden thing, twice hidden", holder) == f"a {MASK} thing, twice {MASK}"


def test_a_secret_that_holds_another_is_masked_whole() -> None:
    assert without_secrets("abcd", [SecretStr("bc"), SecretStr("abcd")]) == MASK


def test_an_empty_secret_and_a_holder_that_holds_itself_do_no_harm() -> None:
    holder: list[Any] = [SecretStr("")]
    holder.append(holder)
    assert without_secrets("text", holder) == "text"


class Asking(Step):
    api_key: Unsigned[str] = "hidden-key"
    storage_options: Unsigned[dict[str, Any]] = Field(
        default={"client": {"token": "hidden-token"}, "project": "my-project"}, exclude=True
    )
    files: Unsigned[list[str]] = Field(default=["https://me:hidden-word@host/a?part=1&sig=hidden-sig"])
    stop_token: str = "signed-token"

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


def test_a_plain_text_is_masked_where_it_is_not_signed_and_has_the_name_of_a_credential() -> None:
    said = "hidden-key hidden-token hidden-word hidden-sig signed-token my-project part=1"
    assert without_secrets(said, Asking()) == f"{MASK} {MASK} {MASK} {MASK} signed-token my-project part=1"


def test_credentials_of_the_environment_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_API_KEY", "hidden-key")
    monkeypatch.setenv("OUR_NAME", "shown-name")
    assert without_secrets("hidden-key shown-name", None) == f"{MASK} shown-name"


def test_a_step_is_shown_without_its_secrets() -> None:
    text = repr(Asking(name="asking"))
    assert "hidden-key" not in text
    assert "hidden-word" not in text
    assert "hidden-sig" not in text
    assert "name='asking'" in text
    assert f"https://me:{MASK}@host/a?part=1&sig={MASK}" in text
