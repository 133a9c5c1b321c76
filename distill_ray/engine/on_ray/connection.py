"""Which Ray cluster a run uses: the one we are in, the one that is named, or a local one of our own."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any


def connect() -> None:
    """Join the cluster of this process, of this job or of ``RAY_ADDRESS``, or start a local one.

    A bare ``ray.init()`` would join whatever cluster last left its address on this machine.
    """
    import ray

    if ray.is_initialized():
        return
    if not all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr)):
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # what steps print goes into a log
    common: dict[str, Any] = {
        "log_to_driver": True,
        "logging_level": logging.WARNING,
        "configure_logging": False,
    }
    if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"):
        ray.init(**common)
    else:
        ray.init(address="local", include_dashboard=False, **common)
