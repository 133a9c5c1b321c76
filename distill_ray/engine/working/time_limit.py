"""Calls that may take only so long: each has a thread of its own, which is left behind where it does not end.

Code that holds the interpreter lets nobody notice: a process that is there for one replica alone is then
ended by a timer outside of the interpreter.
"""

from __future__ import annotations

import contextvars
import faulthandler
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

BACKSTOP_SECONDS = 10.0
"""How much longer a call may take until its process is ended from outside the interpreter."""

LONGEST_SECONDS = 1e9
"""Thirty years: whoever wants any time may say infinity, of which timers know nothing."""


class OverdueError(BaseException):
    """A call takes too long. It goes on: what it works on must not be used any more."""


class TimeLimit:
    """How long calls may take.

    Args:
        seconds: for each call; None: as long as they like.
        ends_process: whether this process may be ended where a call does not let anyone notice.
    """

    def __init__(self, seconds: float | None, *, ends_process: bool) -> None:
        self.seconds = None if seconds is None else min(seconds, LONGEST_SECONDS)
        self._ends_process = ends_process

    def call(self, function: Callable[[], T]) -> T:
        """Return what the function returns, or raise what it raises.

        Raises:
            OverdueError: it has not returned in time.
        """
        if self.seconds is None:
            return function()
        call = _Call(function)
        if self._ends_process:
            _BACKSTOP.add(call, time.monotonic() + self.seconds + BACKSTOP_SECONDS)
        try:
            call.start()
            call.join(self.seconds)
        finally:
            if self._ends_process:
                _BACKSTOP.remove(call)
        return call.result()


class _Call(threading.Thread, Generic[T]):
    """One call, on a thread that keeps no process from ending."""

    def __init__(self, function: Callable[[], T]) -> None:
        super().__init__(name="batch", daemon=True)
        self._context = contextvars.copy_context()
        self._function = function
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._results.append(self._context.run(self._function))
        except BaseException as error:  # whatever it is, it is the caller's
            self._error = error

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        if not self._results:
            raise OverdueError
        return self._results[0]


class _Backstop:
    """The process's one timer that ends it, set for the first of all calls that are under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[object, float] = {}

    def add(self, call: object, end: float) -> None:
        with self._lock:
            self._ends[call] = end
            self._set()

    def remove(self, call: object) -> None:
        with self._lock:
            self._ends.pop(call, None)
            self._set()

    def _set(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._ends:
            left = max(0.1, min(self._ends.values()) - time.monotonic())
            faulthandler.dump_traceback_later(left, exit=True)


_BACKSTOP = _Backstop()
