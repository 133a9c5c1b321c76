"""Bytes, seconds and tokens as people write and read them."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import click

from distill_ray.cache.runs import begun
from distill_ray.cache.stock import Cost

_BYTES = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGTP", 1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGTP", 1)},
}

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


class Size(click.ParamType):  # type: ignore[type-arg]  # newer versions only
    """A number of bytes, such as ``500GB`` or ``1.5TiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", value.strip())
        if found is None or found[2].upper() not in _BYTES:
            self.fail(f"'{value}' is no size: write it as 500GB, 1.5TiB or 4096.", param, ctx)
        return int(float(found[1]) * _BYTES[found[2].upper()])


class Duration(click.ParamType):  # type: ignore[type-arg]  # newer versions only
    """A number of seconds, such as ``30d``, ``12h`` or ``90s``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)", value.strip())
        if found is None or not (found[2] or float(found[1]) == 0):
            self.fail(f"'{value}' is no duration: write it as 30d, 12h, 10m or 45s.", param, ctx)
        return float(found[1]) * _SECONDS.get(found[2], 0.0)


def bytes_text(size: float) -> str:
    """Bytes, in the unit that needs few digits."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} PB"


def seconds_text(seconds: float) -> str:
    """Seconds, in the unit that needs few digits."""
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.1f} s"


def cost_text(cost: Cost) -> str:
    """What it takes to make something again."""
    text = f"{seconds_text(cost.seconds)} of computing"
    if cost.input_tokens or cost.output_tokens:
        text += f", {cost.input_tokens:,} tokens read and {cost.output_tokens:,} written by models"
    return text


def count_text(number: int, noun: str) -> str:
    """So many of something."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def day_text(run: str) -> str:
    """When a run began, as its id says."""
    seconds = begun(run)
    return "-" if seconds == math.inf else time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def shown(text: str) -> str:
    """What others wrote: it must not steer the terminal that shows it."""
    return "".join(character if character.isprintable() else "?" for character in text)
