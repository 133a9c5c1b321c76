"""Trying again: what a store refuses for a while is asked for until it is there again, or for long enough."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from distill_ray.environment import seconds_in
from distill_ray.storage.faults import is_passing, status_of

RETRY_VARIABLE = "DISTILL_RAY_RETRY_SECONDS"
"""Seconds for which an operation that fails is begun again."""

_RETRY_SECONDS = 60.0

_SILENT_SECONDS = 3.0
"""Single failures are what stores are like: what lasts longer is said."""

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class Outage:
    """Whether a store answers, as far as this process has heard: what it says once, and not for each try."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._began: float | None = None
        self._said = False

    def failed(self, why: str, began: float) -> None:
        """Take down that what was begun then, by the monotonic clock, has failed in a way that may pass."""
        if self._began is None:
            self._began = began
        if not self._said and time.monotonic() - self._began >= _SILENT_SECONDS:
            self._said = True
            _log.warning("%s cannot be used (%s): it is being tried again.", self._store, why)

    def answered(self) -> None:
        """Take down that it answered."""
        began, said = self._began, self._said
        self._began, self._said = None, False
        if said and began is not None:
            _log.warning("%s can be used again, after %.0f s.", self._store, time.monotonic() - began)


_OUTAGES: dict[str, Outage] = {}


def outage_of(store: str) -> Outage:
    """What this process knows of a store."""
    return _OUTAGES.setdefault(store, Outage(store))


def persist(outage: Outage, act: Callable[[], _Result]) -> _Result:
    """Do something that may be done twice, and again while it fails in ways that may pass.

    Clients try again by themselves, each in its own way and not after everything; this is begun anew once
    they have given up, for about a minute (``DISTILL_RAY_RETRY_SECONDS``).
    """
    began, wait = time.monotonic(), _FIRST_WAIT
    while True:
        try:
            result = act()
        except Exception as error:
            if not is_passing(error) or time.monotonic() - began >= retry_seconds():
                raise
            outage.failed(in_brief(error), began)
        else:
            outage.answered()
            return result
        time.sleep(random.uniform(wait / 2, wait))  # noqa: S311 - so that not all come back at once
        wait = min(2 * wait, _LONGEST_WAIT)


def retry_seconds() -> float:
    """The default, or what ``DISTILL_RAY_RETRY_SECONDS`` says."""
    return seconds_in(RETRY_VARIABLE, _RETRY_SECONDS)


def in_brief(error: Exception) -> str:
    """What went wrong, without what a message may hold."""
    status = status_of(error)
    return named(status) if status is not None else type(error).__name__


def named(status: int) -> str:
    """A status as it is spoken of."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
