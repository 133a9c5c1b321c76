"""Steps of a shop that answers its customers."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from distill_ray.steps import GlobalStep, RuntimeParameter, StepInput, StepOutput, step
from distill_ray.types import Unsigned
from shop.base import TextStep, note
from shop.words import LIMIT, is_loud, number_of, shorten


class Clean(TextStep):
    """Takes from a text what matters."""

    row_wise = True

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["clean"]

    def process(self, inputs: StepInput) -> StepOutput:
        """Yield the rows with their first words."""
        # The rest is greetings.
        note(self.log, "clean", len(inputs))
        yield [{**row, "clean": shorten(self.tidy(row["text"]), LIMIT)} for row in inputs]


class Rules(BaseModel):
    strict: bool = True
    levels: dict[str, list[int]] = {"low": [1, 2]}


@dataclass(frozen=True)
class Bounds:
    low: int = 0
    high: int = 9


class Mark(TextStep):
    """Says of a text what became of it under all these parameters."""

    row_wise = True

    count: int = 1
    share: float = 1.0
    anything: Any = 1
    word: str = "a-b"
    strict: bool = False
    perhaps: str | None = None
    names: list[str] = ["a-b"]
    table: dict[str, Any] = {"a": 1, "b": {"c": [1, 2]}}
    kinds: set[str] = {"x", "y"}
    rules: Rules = Rules()
    bounds: Bounds = Bounds()
    turn: Callable[[str], str] = lambda text: text

    @property
    def inputs(self) -> list[str]:
        return ["clean"]

    @property
    def outputs(self) -> list[str]:
        return ["mark", "loud"]

    def process(self, inputs: StepInput) -> StepOutput:
        note(self.log, "mark", len(inputs))
        settings = [self.count, self.share, self.anything, self.word, self.strict, self.perhaps, self.names]
        settings += [self.rules, self.bounds, sorted(self.kinds), sorted(self.table.items())]
        for row in inputs:
            text = f"{settings!r} {self.turn(row['clean'])}"
            mark = hashlib.sha256(text.encode()).hexdigest()[:8]
            yield [{**row, "mark": mark, "loud": is_loud(row["clean"])}]


def make_tag(suffix: str) -> type[Any]:
    @step(inputs=["answer"], outputs=["tag"], row_wise=True)
    def tag(inputs: StepInput, log: RuntimeParameter[Unsigned[str]] = "") -> StepOutput:
        note(log, "tag", len(inputs))
        yield [{**row, "tag": row["answer"][:6] + suffix} for row in inputs]

    return tag


class Keep(TextStep):
    """Leaves out every fourth order."""

    row_wise = True

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    def process(self, inputs: StepInput) -> StepOutput:
        note(self.log, "keep", len(inputs))
        yield [row for row in inputs if number_of(row["text"]) % 4 != 3]


class Pack(TextStep):
    """Says of each row which one is the first of its batch."""

    @property
    def outputs(self) -> list[str]:
        return ["parcel"]

    def process(self, inputs: StepInput) -> StepOutput:
        note(self.log, "pack", len(inputs))
        yield [{**row, "parcel": inputs[0]["text"]} for row in inputs]


class Rank(GlobalStep):
    """Sorts all rows by their answers."""

    log: Unsigned[str]

    @property
    def outputs(self) -> list[str]:
        return ["rank"]

    def process(self, inputs: StepInput) -> StepOutput:
        note(self.log, "rank", len(inputs))
        ranked = sorted(inputs, key=lambda row: (row["tag"], row["text"]))
        yield [{**row, "rank": rank} for rank, row in enumerate(ranked)]
