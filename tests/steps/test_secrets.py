"""What a step says is free of its secrets, wherever in its parameters they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from distill_ray.credentials import MASK
from distill_ray.steps.secrets import without_secrets


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
