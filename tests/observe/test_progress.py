"""Which display is chosen."""

from __future__ import annotations

import io
import sys

import pytest

from distill_ray.errors import ParameterError
from distill_ray.observe.lines import LineProgress
from distill_ray.observe.live import LiveProgress
from distill_ray.observe.progress import VARIABLE, make_progress
from tests.observe.events_of_a_run import loading, started


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_gets_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(make_progress(), LiveProgress)


@pytest.mark.parametrize("stderr", [io.StringIO(), None])
def test_what_is_no_terminal_gets_lines(stderr: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    assert isinstance(make_progress(), LineProgress)


def test_a_closed_standard_error_gets_lines_that_nobody_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    make_progress()(started(loading()))


def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(), LineProgress)


def test_where_a_debugger_may_ask_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(make_progress(redraw=False), LineProgress)


def test_the_variable_wants_lines_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv(VARIABLE, "plain")
    assert isinstance(make_progress(), LineProgress)


@pytest.mark.parametrize(("mode", "variable"), [("none", ""), ("auto", "none"), ("none", "plain")])
def test_none_is_silent(
    mode: str, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, variable)
    make_progress(mode)(started(loading()))
    assert capsys.readouterr() == ("", "")


def test_an_unknown_mode_lists_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="progress must be one of auto, plain, none, not 'loud'"):
        make_progress("loud")
    monkeypatch.setenv(VARIABLE, "loud")
    with pytest.raises(ParameterError, match=f"{VARIABLE} must be one of"):
        make_progress()
