"""Credentials that are plain texts are found by their names, and other texts are left as they are."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.credentials import (
    MASK,
    cause,
    credentials_in,
    credentials_in_url,
    names_credential,
    shown,
    without,
)


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "apikey", "API-KEY", "x-api-key", "OPENAI_API_KEY", "account_key", "secret_access_key"),
        *("token", "hf_token", "X-Amz-Security-Token", "sig", "X-Goog-Signature", "X-Amz-Credential"),
        *("password", "client_secret", "Authorization", "connection_string", "sas_token", "Cookie", "auth"),
    ],
)
def test_what_has_the_name_of_a_credential_is_one(name: str) -> None:
    assert names_credential(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "key",
        "keys",
        "max_tokens",
        "tokenizer",
        "authors",
        "secretary",
        "signal",
        "sort_key",
        "design",
        "RAY_AUTH_MODE",
        3,
    ],
)
def test_what_only_looks_like_it_is_none(name: Any) -> None:
    assert not names_credential(name)


def test_credentials_are_found_in_a_tree_by_the_names_on_the_way() -> None:
    options = {
        "token": {"client_email": "me@example.org", "private": ["first-line", "second-line"]},
        "client_kwargs": {"headers": {"Authorization": "Bearer abc", "Accept": "application/json"}},
        "password": "short",
        "proxy": "http://me:hidden@proxy:80",
        "anon": True,
    }
    assert list(credentials_in(options)) == [
        "me@example.org",
        "first-line",
        "second-line",
        "Bearer abc",
        "hidden",
    ]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://host/x?part=1", []),
        ("https://me:pass%20word@host/x", ["pass%20word"]),
        ("https://host/x?X-Amz-Date=1&X-Amz-Signature=a%2Fb", ["a%2Fb", "a/b"]),
        ("gs::https://host/x?sig=s", ["s"]),
        ("https://[broken", []),
        ("/a/path?token=abc", []),
    ],
)
def test_a_url_holds_a_password_and_what_its_query_names_so(url: str, found: list[str]) -> None:
    assert sorted(set(credentials_in_url(url))) == found


def test_what_is_shown_of_a_tree_lacks_only_the_credentials() -> None:
    tree = {"files": ["https://host/a?sig=abc", "/b"], "n": 3, "none": None}
    assert shown(tree) == {"files": [f"https://host/a?sig={MASK}", "/b"], "n": 3, "none": None}


@given(st.text(), st.text(), st.text(st.characters(exclude_characters="*"), min_size=1).filter(str.strip))
def test_no_form_of_a_secret_is_left(before: str, after: str, secret: str) -> None:
    data = secret.encode("utf-8", "surrogatepass")
    for form in (secret, repr(secret), json.dumps(secret), repr(data), quote(data)):
        assert secret not in without(f"{before}{form}{after}", [secret])


def test_an_error_that_says_a_secret_is_no_cause() -> None:
    with pytest.raises(ValueError, match="outer") as raised:
        raise ValueError("outer") from KeyError("abcdef")
    assert cause(raised.value, ["abcdef"]) is None
    assert cause(raised.value, ["other"]) is raised.value
