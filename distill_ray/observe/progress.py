"""Chooses how a run's progress is shown: a table on a terminal, timed lines elsewhere, or not at all."""

from __future__ import annotations

import os
import sys

from distill_ray.errors import ParameterError
from distill_ray.events import Listener, RunEvent
from distill_ray.observe.lines import LineProgress

VARIABLE = "DISTILL_RAY_PROGRESS"

MODES = ("auto", "plain", "none")


def make_progress(mode: str = "auto", *, redraw: bool = True) -> Listener:
    """Make the listener that shows progress on standard error.

    Args:
        mode: ``"auto"`` is a table that is redrawn on a terminal and timed lines elsewhere, ``"plain"`` timed
            lines everywhere, ``"none"`` silent. Where it is ``"auto"``, ``DISTILL_RAY_PROGRESS`` decides.
        redraw: False wants lines on a terminal too, where a debugger may ask for it.

    Raises:
        ParameterError: there is no such mode.
    """
    _check(mode, "progress")
    if mode == "auto":
        mode = os.environ.get(VARIABLE) or "auto"
        _check(mode, VARIABLE)
    if mode == "none":
        return _silent
    if mode == "plain" or not redraw or not _is_terminal():
        return LineProgress()
    from distill_ray.observe.live import LiveProgress

    return LiveProgress()


def _check(mode: str, where: str) -> None:
    if mode not in MODES:
        raise ParameterError(f"{where} must be one of {', '.join(MODES)}, not '{mode}'.")


def _is_terminal() -> bool:
    """Whether standard error can be redrawn; a notebook's and a closed one cannot."""
    try:
        return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    except (AttributeError, ValueError):
        return False


def _silent(_event: RunEvent) -> None:
    """Show nothing."""
