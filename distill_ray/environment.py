"""Settings that are given by environment variables."""

from __future__ import annotations

import os

from distill_ray.errors import ParameterError


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
