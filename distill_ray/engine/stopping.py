"""What SIGINT and SIGTERM ask of a run: first to stop, then to end at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

from distill_ray.errors import RunEndedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


IDLE = "The run was stopped while nothing was being computed: run it again to go on."

AT_ONCE = (
    "The run was ended at once. What was stored is in the cache: run it again to resume. Rows of calls that "
    "were under way, and those that were not yet written, are computed again."
)


def end_at_once(number: int) -> NoReturn:
    """What the first signal asks for where nothing is under way that should come to its end.

    Raises:
        RunEndedError: always.
    """
    raise RunEndedError(IDLE, signal=number)


@dataclass
class _Handler:
    """What handles the signals of a run.

    Attributes:
        stop: what the first signal asks for.
        before: the handlers that stood before, by signal: they come back at the end.
        asked: a signal has come.
    """

    stop: Callable[[int], None]
    before: dict[signal.Signals, Any] = field(default_factory=dict)
    asked: bool = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise RunEndedError(AT_ONCE, signal=number)
        self.asked = True
        self.stop(number)


@contextmanager
def stop_on_signals(stop: Callable[[int], None] = end_at_once) -> Iterator[None]:
    """Call ``stop(number of the signal)`` on the first signal, raise `RunEndedError` on those after it.

    It may be entered again inside, with another way to stop. Handlers that stood before come back at the end.
    Only the main thread may have handlers: in another one nothing changes.
    """
    if not _in_main_thread():
        yield
        return
    handler = _Handler(stop)
    for number in SIGNALS:
        handler.before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in handler.before.items():
            # None stands for a handler that was not set from Python, and cannot be put back from it.
            signal.signal(number, signal.SIG_DFL if before is None else before)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Keep the run's handlers where ``ray.init`` puts its own in their place: that one comes back at the end.

    Raises:
        RunEndedError: it was Ray's that heard a signal.
    """
    ours = {number: signal.getsignal(number) for number in SIGNALS} if _in_main_thread() else {}
    try:
        yield
    except SystemExit as ended:
        if any(isinstance(handler, _Handler) for handler in ours.values()):
            raise RunEndedError(IDLE, signal=signal.SIGTERM) from ended
        raise
    finally:
        for number, handler in ours.items():
            if isinstance(handler, _Handler) and (other := signal.getsignal(number)) is not handler:
                handler.before[number] = other
                signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
