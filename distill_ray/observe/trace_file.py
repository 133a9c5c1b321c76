"""A file of the Trace Event Format: processes with threads, on which spans, instants and counters stand.

It is the format's array of JSON objects, which may lack its end: the file can be read while it is being
written, and whatever ends that.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import orjson

from distill_ray.errors import ParameterError

_log = logging.getLogger(__name__)


class TraceFile:
    """Writes a trace. Times are seconds since any moment.

    Args:
        path: the file; one that stands there is written over.

    Raises:
        ParameterError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads: set[tuple[int, int]] = set()
        try:
            self._file: IO[bytes] | None = path.open("wb")
        except OSError as error:
            raise ParameterError(f"The profile cannot be written to '{path}': {error}") from error
        self._write(b"[")
        self._comma = b"\n"

    def process(self, process: int, name: str) -> None:
        """Name a process; they are shown in the order of their numbers."""
        self._put({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}})
        self._put({"ph": "M", "name": "process_sort_index", "pid": process, "args": {"sort_index": process}})

    def thread(self, process: int, thread: int, name: str) -> None:
        """Name a thread, unless it has its name."""
        if (process, thread) not in self._threads:
            self._threads.add((process, thread))
            where = {"pid": process, "tid": thread}
            self._put({"ph": "M", "name": "thread_name", **where, "args": {"name": name}})
            self._put({"ph": "M", "name": "thread_sort_index", **where, "args": {"sort_index": thread}})

    def span(self, where: tuple[int, int], name: str, times: tuple[float, float], **args: Any) -> None:
        """Say what lasted from one time to another, on a thread of a process."""
        start, end = times
        at = {"ts": _microseconds(start), "dur": _microseconds(end - start)}
        self._put({"ph": "X", "name": name, "pid": where[0], "tid": where[1], **at, "args": args})

    def instant(self, where: tuple[int, int], name: str, at: float, **args: Any) -> None:
        """Say what happened at a time."""
        place = {"pid": where[0], "tid": where[1], "s": "t"}
        self._put({"ph": "i", "name": name, **place, "ts": _microseconds(at), "args": args})

    def counter(self, process: int, name: str, at: float, value: int) -> None:
        """Say what an amount is from a time on."""
        amount = {"value": value}
        self._put({"ph": "C", "name": name, "pid": process, "ts": _microseconds(at), "args": amount})

    def close(self) -> bool:
        """End the file; say whether all of it could be written."""
        self._write(b"\n]\n")
        if self._file is None:
            return False
        try:
            self._file.close()
        except OSError as error:
            self._give_up(error)
            return False
        self._file = None
        return True

    def _put(self, record: dict[str, Any]) -> None:
        self._write(self._comma + orjson.dumps(record, option=orjson.OPT_NON_STR_KEYS))
        self._comma = b",\n"

    def _write(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """A full disk is no reason to end a run."""
        if self._file is not None:
            with suppress(OSError):  # what is still to be written does not fit either
                self._file.close()
            self._file = None
        _log.warning("The profile %s is not complete: %s", self._path, error)


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 1)
