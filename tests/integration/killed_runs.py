"""Runs in a process of their own that is killed, as by `kill -9`, at one of its writes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from distill_ray.errors import DistillRayError
from tests.integration.pipelines_of_edits import Draft, declare

WRITES = ("link", "replace", "unlink", "write")
"""Functions of `os` before whose calls the process may be killed."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "distill_ray.engine.inline", "distill_ray.pipeline.running"])


def run_killed(draft: Draft, root: Path, log: Path, writes: int) -> bool:
    """Run a draft in another process, killing that before so many writes; say whether it was killed."""
    process = _processes.Process(target=_run, args=(draft, root, log, writes))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _run(draft: Draft, root: Path, log: Path, writes: int) -> None:
    os.environ["DISTILL_RAY_FLUSH_SECONDS"] = "0.001"
    left = [writes]
    for name in WRITES:
        setattr(os, name, _deadly(getattr(os, name), left))
    with suppress(DistillRayError):  # a draft that cannot be done
        declare(draft, root, log).run(engine="inline", progress="none")


def _deadly(write: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """The same, until there are no writes left; what the heartbeat writes does not count."""

    def wrote(*arguments: Any, **options: Any) -> Any:
        if "heartbeat" not in threading.current_thread().name:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return write(*arguments, **options)

    return wrote
