"""Which Ray cluster a run uses: the one we are in, the one that is named, or a local one of our own."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any

from distill_ray.engine.stopping import handlers_kept
from distill_ray.errors import ClusterError

_REACH_SECONDS = 5.0
"""How long a cluster's port may take to answer: Ray itself would try for minutes."""


def connect(address: str = "") -> None:
    """Join the cluster of this process, of this job or of ``RAY_ADDRESS``, or start a local one.

    A bare ``ray.init()`` would join whatever cluster last left its address on this machine.

    Args:
        address: the cluster to join, whatever ``RAY_ADDRESS`` says; empty: as said above.

    Raises:
        ClusterError: the cluster that is named cannot be joined.
    """
    import ray

    if address:
        _check_reachable(address)
    if ray.is_initialized():
        _check_joined(address)
        return
    if not all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr)):
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # what steps print goes into a log
    common: dict[str, Any] = {
        "log_to_driver": True,
        "logging_level": logging.WARNING,
        "configure_logging": False,
    }
    named = address or os.environ.get("RAY_ADDRESS", "")
    if not named and not os.environ.get("RAY_JOB_ID"):
        with handlers_kept():
            ray.init(address="local", include_dashboard=False, **common)
        return
    _check_reachable(named)
    try:
        with handlers_kept():
            ray.init(address=address or None, **common)
    except (ConnectionError, RuntimeError, ValueError) as error:  # RuntimeError: another Python or Ray
        raise ClusterError(f"The Ray cluster at {named} cannot be joined: {error}") from error


def _check_joined(address: str) -> None:
    """Refuse another cluster than the one that this process is part of already.

    Raises:
        ClusterError: it is another.
    """
    import ray

    joined = ray.get_runtime_context().gcs_address
    if address not in ("", "auto", joined):
        raise ClusterError(
            f"This process has joined the Ray cluster at {joined} already, and cannot use that at {address}: "
            "call ray.shutdown() first, or use another process."
        )


def _check_reachable(address: str) -> None:
    """Refuse an address at which nobody listens.

    Raises:
        ClusterError: nobody does, or it is the dashboard's.
    """
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address} is the address of a cluster's dashboard, which takes jobs (`distill-ray submit`). To "
            "join the cluster from one of its nodes, give HOST:PORT of its head (6379 is Ray's usual port), "
            "or `auto`."
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():  # such as `auto`
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"No Ray cluster answers at {address}: {error}. Start one (`ray start --head` prints its "
            "address), or give another address (RAY_ADDRESS, --address)."
        ) from error
