"""Names a process of a machine, so that others on that machine see at once that it is gone.

It only shortens a wait: where a process cannot be named or seen, nothing is said of it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_DEAD_STATES = ("Z", "X")


def this_process() -> str:
    """Name this process among all that ever ran on any machine; empty where the system does not tell."""
    stat = _stat(os.getpid())
    return f"{_machine()} {os.getpid()} {stat[1]}" if stat and _machine() else ""


def is_gone(process: str) -> bool:
    """Whether a process, as it was named there, surely runs no more. One of another machine may."""
    machine, _, rest = process.partition(" ")
    pid, _, started = rest.partition(" ")
    if not machine or machine != _machine() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False  # another user's: its number says nothing more
    stat = _stat(int(pid))
    return stat is not None and (stat[0] in _DEAD_STATES or stat[1] != started)


def _stat(pid: int) -> tuple[str, str] | None:
    """State of a process, and when it started."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None


@cache
def _machine() -> str:
    """This boot of this machine, and the process numbers that hold here: containers have their own."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}" if boot else ""
    except OSError:
        return ""
