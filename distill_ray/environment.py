"""Settings that are given by environment variables."""

from __future__ import annotations

import os

from distill_ray.errors import ParameterError

SPREAD_GPUS_VARIABLE = "DISTILL_RAY_SPREAD_GPUS"


def spread_gpus() -> int:
    """Return how many GPUs are reserved for this replica across nodes; 0: it has those of its node, if any.

    Users do not set it: the replica's actor does where its resources say ``across_nodes``.
    """
    return int(os.environ.get(SPREAD_GPUS_VARIABLE) or 0)


def seconds_in(variable: str, default: float) -> float:
    """Return what a variable says, or the default where it is not set, or empty.

    Raises:
        ParameterError: it is no number.
    """
    given = os.environ.get(variable)
    try:
        return float(given) if given else default
    except ValueError as error:
        raise ParameterError(f"{variable} must be a number of seconds, not {given!r}.") from error
