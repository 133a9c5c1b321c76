"""When a request is tried again, and how long is waited before."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.models.retry import delay_before_retry, may_pass, with_retries


class HttpError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status
        self.headers = {"Retry-After": "0"}


@given(st.integers(0, 50))
def test_waits_grow_and_stay_bounded(attempt: int) -> None:
    delay = delay_before_retry(attempt, {})
    assert min(0.375 * 2**attempt, 22.5) <= delay <= min(0.5 * 2**attempt, 30)


@given(st.floats(0, 1e9))
def test_the_servers_word_counts_within_two_minutes(seconds: float) -> None:
    assert delay_before_retry(0, {"retry-after": str(seconds)}) == min(seconds, 120)


@given(st.text())
def test_a_header_that_says_nothing_is_passed_over(text: str) -> None:
    assert 0 <= delay_before_retry(0, {"retry-after": text}) <= 120


def test_the_servers_word_may_be_a_date() -> None:
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=20), usegmt=True)
    assert 17 < delay_before_retry(0, {"retry-after": later}) <= 20
    assert delay_before_retry(0, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


@given(st.integers(400, 599))
def test_only_rate_limits_and_server_errors_are_tried_again(status: int) -> None:
    assert may_pass(HttpError(status)) == (status in {408, 409, 425, 429} or status >= 500)


@given(failures=st.integers(0, 6), max_retries=st.integers(0, 4))
def test_a_request_is_sent_once_more_than_the_retries_at_most(failures: int, max_retries: int) -> None:
    sent: list[int] = []

    async def request() -> str:
        sent.append(1)
        if len(sent) <= failures:
            raise HttpError(503)
        return "answer"

    if failures > max_retries:
        with pytest.raises(HttpError):
            asyncio.run(with_retries(request, max_retries))
    else:
        assert asyncio.run(with_retries(request, max_retries)) == "answer"
    assert len(sent) == min(failures, max_retries) + 1
