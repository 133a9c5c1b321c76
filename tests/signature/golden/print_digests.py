"""Print what is pinned, as JSON, on any Python: with the standard library alone."""

from __future__ import annotations

import datetime as dt
import enum
import json
import pathlib
import re
import sys
import zoneinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import fixture

from distill_ray.signature.encode import describe, digest
from distill_ray.signature.fingerprint import fingerprint


class Shade(enum.Enum):
    """Dark."""

    DARK = 1


VALUES: dict[str, Any] = {
    "none": None,
    "scalars": [True, 1, 1.0, "1", b"1", -(2**70), 0.1, 1e300, float("nan"), float("-inf"), "ü\ud800"],
    "containers": {
        "list": [1, [2]],
        "set": {"b", "a", "c"},
        "dict": {1: "a", "1": "b", None: []},
        "empty": {},
    },
    "long": list(range(1000)),
    "times": [
        dt.datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=dt.timezone.utc),
        dt.date(2024, 5, 6),
        dt.time(7, 8),
        dt.timedelta(days=1, microseconds=5),
        dt.datetime(2024, 5, 6, tzinfo=zoneinfo.ZoneInfo("UTC")),
    ],
    "numbers": [Decimal("1.50"), Fraction(1, 3), 1 + 2j, range(1, 9, 2)],
    "others": [pathlib.PurePosixPath("/a/b"), re.compile("a+", re.DOTALL), int, pathlib.Path, Any, ...],
    "enum": Shade.DARK,
}


def main() -> None:
    """Print digests, descriptions and fingerprints."""
    everything = fingerprint(fixture.Everything)
    json.dump(
        {
            "values": {name: digest(value) for name, value in VALUES.items()},
            "described": {name: describe(value) for name, value in VALUES.items()},
            "fingerprint": everything.digest,
            "pieces": dict(everything.pieces),
            "blind_spots": everything.blind_spots,
        },
        sys.stdout,
        indent=1,
        sort_keys=True,
    )


if __name__ == "__main__":
    main()
