"""Tries a request again after failures that pass: exponential backoff, jitter, and the server's own word."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeVar

T = TypeVar("T")

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_LONGEST_RETRY_AFTER = 120.0
_PASSING_STATUS = {408, 409, 425, 429}
_CLIENT_LIBRARIES = {"aiohttp", "httpcore", "httpx", "httpx2"}


async def with_retries(request: Callable[[], Awaitable[T]], max_retries: int) -> T:
    """Await the request; where it fails in a way that may pass, wait and send it again."""
    for attempt in range(max_retries):
        try:
            return await request()
        except Exception as error:  # noqa: PERF203 - a request is much slower
            if not may_pass(error):
                raise
            await asyncio.sleep(delay_before_retry(attempt, headers_of(error)))
    return await request()


def may_pass(error: BaseException) -> bool:
    """Say whether the same request may succeed later: rate limit, server error, time-out, lost connection."""
    status = status_of(error)
    if status is not None:
        return status in _PASSING_STATUS or status >= 500
    library = type(error).__module__.partition(".")[0]
    return library in _CLIENT_LIBRARIES or isinstance(error, (asyncio.TimeoutError, OSError))


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status in a client library's error, if it is about one."""
    for holder in (getattr(error, "response", None), error):
        for name in ("status_code", "status"):
            if isinstance(status := getattr(holder, name, None), int):
                return status
    return None


def headers_of(error: BaseException) -> Mapping[str, str]:
    """Return the HTTP headers in a client library's error."""
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    return headers if isinstance(headers, Mapping) else {}


def delay_before_retry(attempt: int, headers: Mapping[str, str]) -> float:
    """Return the seconds to wait: what ``Retry-After`` says, else a growing time with jitter."""
    asked = _retry_after(headers.get("retry-after") or headers.get("Retry-After"))
    if asked is not None:
        return min(asked, _LONGEST_RETRY_AFTER)
    return min(_FIRST_DELAY * 2.0**attempt, _LONGEST_DELAY) * random.uniform(0.75, 1.0)  # noqa: S311


def _retry_after(value: str | None) -> float | None:
    """Read the header, which holds seconds or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
