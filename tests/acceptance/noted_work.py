"""A pipeline whose every piece of work is noted down as it is done, for tests that kill and race its runs.

Run as a script it prints its rows, and what its report says, as one line of JSON::

    python noted_work.py --root ROOT --log LOG --run NAME --engine inline

It holds a unit of each kind: a generator's stretch of rows, a row of a row-wise step, a batch of a plain one,
an answer of a model, all rows of a global step.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from distill_ray.models import LLM, ChatType, GenerateOutput
from distill_ray.pipeline import Pipeline
from distill_ray.steps import StepInput, StepOutput, StepResources
from distill_ray.steps.base import GeneratorStep, GlobalStep, Step
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import GeneratorStepOutput, Row, Unsigned

ROWS = 150
BATCH = 10
"""Rows that the generator yields at a time; the other steps' batches are smaller."""


@dataclass(frozen=True)
class Work:
    """One piece of work that was done.

    Attributes:
        run: the run that did it.
        step: the step that it is of.
        unit: number of the row.
        at: when it was done, in seconds of the wall clock.
    """

    run: str
    step: str
    unit: int
    at: float

    @property
    def piece(self) -> tuple[str, int]:
        return self.step, self.unit


EVERYTHING = {(step, n) for step in ("count", "square", "group", "llm", "rank") for n in range(ROWS)}
"""Each piece of work once."""


def note(log: str, step: str, units: Iterable[int]) -> None:
    """Write down, in one piece, that work was done; ``log`` is a file and the name of the run."""
    path, run = json.loads(log)
    lines = "".join(f"{run} {step} {unit} {time.time()}\n" for unit in units)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, lines.encode())
    finally:
        os.close(file)


def read_work(log: Path) -> list[Work]:
    """What was done so far."""
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").splitlines()
    return [Work(run, step, int(unit), float(at)) for run, step, unit, at in map(str.split, lines)]


class Count(GeneratorStep):
    """Yields numbers."""

    log: Unsigned[str]
    seconds: Unsigned[float]
    outputs: ClassVar[list[str]] = ["n"]

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, ROWS, BATCH):
            numbers = range(start, start + BATCH)
            time.sleep(self.seconds * BATCH)
            note(self.log, "count", numbers)
            yield [{"n": n} for n in numbers], numbers.stop == ROWS


class Square(Step):
    """Row by row."""

    log: Unsigned[str]
    seconds: Unsigned[float]
    row_wise = True
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["square"]

    def process(self, rows: StepInput) -> StepOutput:
        for row in rows:
            time.sleep(self.seconds)
            note(self.log, "square", [row["n"]])
        yield [{**row, "square": row["n"] ** 2} for row in rows]


class Group(Step):
    """Batch by batch: what it gives for a row depends on the others."""

    log: Unsigned[str]
    seconds: Unsigned[float]
    inputs: ClassVar[list[str]] = ["square"]
    outputs: ClassVar[list[str]] = ["group", "instruction"]

    def process(self, rows: StepInput) -> StepOutput:
        time.sleep(self.seconds * len(rows))
        note(self.log, "group", [row["n"] for row in rows])
        group = sum(row["square"] for row in rows)
        yield [{**row, "group": group, "instruction": f"Say {row['n']}"} for row in rows]


class Saying(LLM):
    """Answers with what it is asked for."""

    log: Unsigned[str]
    seconds: Unsigned[float]

    @property
    def model_name(self) -> str:
        return "saying"

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1
    ) -> list[GenerateOutput]:
        numbers = [int(chat[-1]["content"].split()[-1]) for chat in inputs]
        for number in numbers:
            time.sleep(self.seconds)
            note(self.log, "llm", [number])
        return [{"generations": [str(number)] * num_generations} for number in numbers]


class Rank(GlobalStep):
    """All rows at once."""

    log: Unsigned[str]
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["rank"]

    def process(self, rows: StepInput) -> StepOutput:
        note(self.log, "rank", [row["n"] for row in rows])
        yield [{**row, "rank": len(rows) - position} for position, row in enumerate(rows)]


def declare(root: str, log: str = "", seconds: float = 0.0) -> Pipeline:
    """The pipeline.

    Args:
        root: the cache root.
        log: where work is noted down, and the name of the run: see `note`.
        seconds: what each row costs in each step but the last.
    """
    slow: dict[str, Any] = {"log": log, "seconds": seconds, "resources": StepResources(cpus=0.1)}
    with Pipeline(name="noted", cache_dir=root) as pipeline:
        count = Count(name="count", batch_size=BATCH, **slow)
        square = Square(name="square", input_batch_size=4, **slow)
        group = Group(name="group", input_batch_size=6, **slow)
        say = TextGeneration(
            name="say",
            llm=Saying(log=log, seconds=seconds),
            input_batch_size=5,
            resources=StepResources(cpus=0.1),
        )
        rank = Rank(name="rank", log=log, resources=StepResources(cpus=0.1))
        count >> square >> group >> say >> rank
    return pipeline


def expected_rows() -> list[Row]:
    """What every run must give."""
    squares = [n**2 for n in range(ROWS)]
    return [
        {
            "n": n,
            "square": squares[n],
            "group": sum(squares[n - n % 6 : n - n % 6 + 6]),
            "instruction": f"Say {n}",
            "generation": str(n),
            "model_name": "saying",
            "rank": ROWS - n,
        }
        for n in range(ROWS)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--root", "--log", "--run", "--engine"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seconds", type=float, default=0.005)
    parser.add_argument("--on-busy", default="wait")
    asked = parser.parse_args()
    pipeline = declare(asked.root, json.dumps([asked.log, asked.run]), asked.seconds)
    distiset = pipeline.run(engine=asked.engine, on_busy=asked.on_busy)
    rows = distiset["default"]["train"].to_list()
    print(json.dumps({"rows": rows, "report": distiset.report.model_dump()}))


if __name__ == "__main__":
    main()
