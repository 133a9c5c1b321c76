# fmt: off
"""Code whose fingerprints are pinned: something of everything, in the syntax of Python 3.10."""

# A remark that counts for nothing.
from __future__ import annotations

import enum
import functools
import math
import pathlib
import re
import typing
from collections import namedtuple
from dataclasses import dataclass, field
from os.path import join
from typing import Annotated, Any, NamedTuple, Optional, Protocol, TypedDict, Union

PROMPT = """Question:
    {question}  # no remark
"""
PATTERN = re.compile(r"\d+", re.MULTILINE)
Point = namedtuple("Point", "x y")  # noqa: PYI024
Number = Union[int, float]
Score = Annotated[Optional[int], "0 to 5"]
ROOT = pathlib.PurePosixPath("/data")
LIMITS = {"top": 1.5, "all": (1, 2), "none": None, "big": 2**70, "odd": {3, 1}}
scale = functools.partial(round, ndigits=2)


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Row(TypedDict):
    name: str


class Pair(NamedTuple):
    left: int
    right: int = 2


class Runs(Protocol):
    def run(self) -> None: ...


@dataclass(frozen=True)
class Settings:
    """Settings of it all."""

    top: int = 1
    names: list[str] = field(default_factory=list)


class Judge:
    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self, x: float) -> bool:
        return x > self.at


SETTINGS = Settings(3, ["a"])
JUDGE = Judge(0.5)


@functools.lru_cache(maxsize=None)
def cached(x: Number) -> Number:
    """Cached."""
    return x * math.pi


@functools.singledispatch
def kind(x: Any) -> str:
    return "any"


@kind.register
def _(x: int) -> str:
    return "int"


def times(n: int) -> Any:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return [function(*args, **kwargs) for _ in range(n)]

        return inner

    return decorate


class Base:
    mode: typing.ClassVar[Mode] = Mode.FAST

    @functools.cached_property
    def text(self) -> str:
        """Made once."""
        return f"{self.mode.value!r:>{10}} {{literal}} {'nested' + f'{1 + 1}'}"

    @staticmethod
    def fixed() -> str:
        return "fixed"; return "never"  # noqa: E702


class Everything(Base):
    """Does everything.

    >>> Everything()
    """

    size = 3
    names = [name for name in ("a", "b")]

    # Between.
    def run(self, question: Score, *rest: Row, level: Level = Level.HIGH, **more: Runs) -> Any:
        """Run."""
        found = PATTERN.findall(
            PROMPT.format(question=question),  # a remark within
        )
        total = 0x_FF + 1_000 + 1e3 + \
            len(found)
        if (n := len(rest)) > 1: total += n
        pairs = [Pair(left=x) for x in range(3) if JUDGE(x)]
        return "a" 'b' f"""c{
            total}""", pairs, Point(1, 2), kind(total), cached(2), scale(1.234), join("a", "b"), ROOT, SETTINGS

    @times(2)
    async def later(self) -> Any: return lambda x, /, *, y=LIMITS: (x, y)

    @property
    def mode_name(self) -> str: "The name."; return self.mode.name

    class Inner:
        """Inside."""

        ünïcode = "größer \N{BULLET}"
