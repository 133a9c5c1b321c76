"""Calls that may take only so long."""

from __future__ import annotations

import contextvars
import faulthandler
import subprocess
import sys
import threading
from functools import partial

import pytest

from distill_ray.engine.working.time_limit import BACKSTOP_SECONDS, OverdueError, TimeLimit

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="none")


def test_a_call_that_ends_in_time_gives_what_it_gives() -> None:
    limit = TimeLimit(60, ends_process=False)
    assert limit.call(lambda: 7) == 7
    assert limit.call(lambda: None) is None
    NAME.set("set")
    assert limit.call(NAME.get) == "set"


def test_what_a_call_raises_is_raised_be_it_an_exception_or_not() -> None:
    for kind in (ValueError, SystemExit):
        with pytest.raises(kind, match="why"):
            TimeLimit(60, ends_process=False).call(partial(_raise, kind("why")))


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
@pytest.mark.parametrize("ends_process", [True, False])
def test_a_limit_that_no_timer_knows_is_no_error(seconds: float, ends_process: bool) -> None:
    assert TimeLimit(seconds, ends_process=ends_process).call(lambda: 7) == 7


def test_without_a_limit_a_call_stays_on_its_thread() -> None:
    assert TimeLimit(None, ends_process=True).call(threading.get_ident) == threading.get_ident()
    assert TimeLimit(60, ends_process=True).call(threading.get_ident) != threading.get_ident()


def test_a_call_that_takes_longer_is_left_behind() -> None:
    go_on = threading.Event()
    with pytest.raises(OverdueError):
        TimeLimit(0.01, ends_process=False).call(go_on.wait)
    go_on.set()


def test_no_except_clause_for_exceptions_takes_it_for_a_rows_failure() -> None:
    assert not issubclass(OverdueError, Exception)


def test_a_process_is_ended_only_while_a_call_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[float | None] = []

    def note(after: float, **_: object) -> None:
        set_to.append(after)

    monkeypatch.setattr(faulthandler, "dump_traceback_later", note)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: set_to.append(None))
    outer = TimeLimit(100, ends_process=True)
    outer.call(lambda: TimeLimit(5, ends_process=True).call(lambda: None))
    first, second, third = (after for after in set_to if after is not None)
    assert first == pytest.approx(100 + BACKSTOP_SECONDS, abs=2)
    assert second == pytest.approx(5 + BACKSTOP_SECONDS, abs=2), "the first of both"
    assert third == pytest.approx(100 + BACKSTOP_SECONDS, abs=2), "the one that is still under way"
    assert set_to[-1] is None


@pytest.mark.slow
def test_a_call_that_holds_the_interpreter_ends_its_process_and_says_where_it_was() -> None:
    program = (
        "import re\n"
        "from distill_ray.engine.working import time_limit\n"
        "time_limit.BACKSTOP_SECONDS = 0.5\n"
        "time_limit.TimeLimit(0.1, ends_process=True).call(lambda: re.match('(a*)*b', 'a' * 60))\n"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "time_limit.py" in ended.stderr
