"""A pipeline whose work is noted with the process that did it, for tests that kill actors, nodes and drivers.

Run as a script it writes its rows, and what its report says, to a file as JSON::

    python killed_pipeline.py '{"root": ROOT, "log": LOG, "run": NAME, "out": FILE}'

It holds a step of each kind, and a model that never gives the same answer twice. Its answers go two ways, are
digested on each, and come together in a step that is given all rows: rows that were made from two different
answers to one request do not pass `wrong_rows`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from distill_ray.models import LLM, ChatType, GenerateOutput
from distill_ray.pipeline import Pipeline
from distill_ray.steps import StepInput, StepOutput, StepResources
from distill_ray.steps.base import BaseStep, GeneratorStep, GlobalStep, Step
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import GeneratorStepOutput, Row, Unsigned

ROWS = 120
BATCH = 12
GROUP = 6

STEPS = ("count", "square", "group", "say", "left", "right", "rank")
"""The steps that note their work."""

REPLICA_CPUS = 0.2
LOAD_SECONDS = 0.4


@dataclass(frozen=True)
class Settings:
    """What a run is told.

    Attributes:
        root: the cache root.
        log: the file in which work is noted.
        run: the run's name in it.
        out: where the rows are written.
        seconds: what a row costs the model; the other steps take less.
        pad: bytes that each row of ``group`` carries on. From 100 KB on the rows of a call stay in the object
            store of the node that made them, and do not travel with the reply.
        answer_pad: characters that each answer has more than it needs.
        storage_options: of the root.
        resources: custom resources of the steps' replicas, by step.
        steps: names of the steps: of all, or of the first two.
    """

    root: str
    log: str
    run: str
    out: str
    seconds: float = 0.04
    pad: int = 20_000
    answer_pad: int = 0
    storage_options: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, dict[str, float]] = field(default_factory=dict)
    steps: Sequence[str] = STEPS


@dataclass(frozen=True)
class Work:
    """One piece of work that was done, or a replica that began to load (``load:STEP``).

    Attributes:
        run: the run that did it.
        step: the step that it is of.
        unit: number of the row.
        at: when, in seconds of the wall clock.
        pid: the process that did it.
        parent: the process that this one is a child of: the node's.
    """

    run: str
    step: str
    unit: int
    at: float
    pid: int
    parent: int


def note(log: str, step: str, units: Iterable[int]) -> None:
    """Write down, in one piece, that work was done; ``log`` is a file and the name of the run."""
    path, run = json.loads(log)
    lines = "".join(f"{run} {step} {unit} {time.time()} {os.getpid()} {os.getppid()}\n" for unit in units)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, lines.encode())
    finally:
        os.close(file)


def read_work(log: Path) -> list[Work]:
    """What was noted so far."""
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    return [
        Work(run, step, int(unit), float(at), int(pid), int(parent))
        for run, step, unit, at, pid, parent in map(str.split, lines)
    ]


class Noting(BaseStep):
    """What the steps share: where they note their work, and what a row costs."""

    log: Unsigned[str]
    seconds: Unsigned[float]

    def load(self) -> None:
        super().load()
        note(self.log, f"load:{self.name}", [0])
        time.sleep(LOAD_SECONDS)

    def work_on(self, rows: Iterable[int]) -> None:
        """Take the time that rows take, and note them one by one."""
        for row in rows:
            time.sleep(self.seconds)
            note(self.log, str(self.name), [row])


class Count(Noting, GeneratorStep):
    """Yields numbers."""

    outputs: ClassVar[list[str]] = ["n"]

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, ROWS, BATCH):
            numbers = range(start, min(start + BATCH, ROWS))
            self.work_on(numbers)
            yield [{"n": n} for n in numbers], numbers.stop == ROWS


class Square(Noting, Step):
    """Row by row."""

    row_wise = True
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["square"]

    def process(self, rows: StepInput) -> StepOutput:
        self.work_on(row["n"] for row in rows)
        yield [{**row, "square": row["n"] ** 2} for row in rows]


class Group(Noting, Step):
    """Batch by batch: what it gives for a row depends on the others."""

    pad: Unsigned[int]
    inputs: ClassVar[list[str]] = ["square"]
    outputs: ClassVar[list[str]] = ["group", "pad", "instruction"]

    def process(self, rows: StepInput) -> StepOutput:
        self.work_on(row["n"] for row in rows)
        group = sum(row["square"] for row in rows)
        yield [{**row, "group": group, **made_of(row["n"], self.pad)} for row in rows]


class Saying(LLM):
    """Answers with what it is asked for and a random word."""

    log: Unsigned[str]
    seconds: Unsigned[float]
    pad: Unsigned[int]

    @property
    def model_name(self) -> str:
        return "saying"

    def load(self) -> None:
        super().load()
        note(self.log, "load:say", [0])
        time.sleep(LOAD_SECONDS)

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1
    ) -> list[GenerateOutput]:
        answers: list[GenerateOutput] = []
        for chat in inputs:
            number = chat[-1]["content"].split()[-1]
            time.sleep(self.seconds)
            note(self.log, "say", [int(number)])
            said: list[str | None] = [
                f"{number} {secrets.token_hex(8)}{' ' * self.pad}" for _ in range(num_generations)
            ]
            answers.append({"generations": said})
        return answers


class Left(Noting, Step):
    """Digests an answer, row by row."""

    row_wise = True
    inputs: ClassVar[list[str]] = ["n", "generation"]
    outputs: ClassVar[list[str]] = ["left"]

    def process(self, rows: StepInput) -> StepOutput:
        self.work_on(row["n"] for row in rows)
        yield [{**row, "left": digest(row["generation"])} for row in rows]


class Right(Noting, Step):
    """Digests the answers of a batch together."""

    inputs: ClassVar[list[str]] = ["n", "generation"]
    outputs: ClassVar[list[str]] = ["right"]

    def process(self, rows: StepInput) -> StepOutput:
        self.work_on(row["n"] for row in rows)
        right = digest(*(row["generation"] for row in rows))
        yield [{"n": row["n"], "right": right} for row in rows]


class Rank(Noting, GlobalStep):
    """All rows of both ways at once, with a digest of all answers in each."""

    inputs: ClassVar[list[str]] = ["n", "generation"]
    outputs: ClassVar[list[str]] = ["everything", "rank"]

    def process(self, left: StepInput, right: StepInput) -> StepOutput:
        note(self.log, "begin:rank", [0])
        self.work_on(row["n"] for row in left)
        everything = digest(*(row["generation"] for row in left))
        yield [
            {**row, "right": other["right"], "everything": everything, "rank": ROWS - row["n"]}
            for row, other in zip(left, right, strict=True)
        ]


def digest(*texts: str) -> str:
    """One of all texts in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def made_of(n: int, pad: int) -> Row:
    """What `Group` adds to a row beside the sum."""
    return {"pad": (f"{n} " * (pad // len(f"{n} ") + 1))[:pad], "instruction": f"Say {n}"}


def told_of(row: Row) -> Row:
    """A row as it is written for the test, which its padding would be too much for."""
    return {**row, "pad": digest(row["pad"])} if "pad" in row else row


def noted(told: Settings, name: str, share: float, replicas: int = 1) -> dict[str, Any]:
    """Fields of a step that notes its work, whose rows cost a share of what an answer does."""
    log = json.dumps([told.log, told.run])
    return {"name": name, "log": log, "seconds": told.seconds * share, **run_with(told, name, replicas)}


def run_with(told: Settings, name: str, replicas: int) -> dict[str, Any]:
    """The field ``resources`` of a step."""
    custom = told.resources.get(name)
    return {"resources": StepResources(replicas=replicas, cpus=REPLICA_CPUS, resources=custom)}


def start_of(told: Settings) -> Square:
    """The first two steps, in the pipeline whose block this is called in; returns the second."""
    count = Count(batch_size=BATCH, **noted(told, "count", 0.25))
    square = Square(input_batch_size=4, **noted(told, "square", 0.25, replicas=2))
    count >> square
    return square


def declare(told: Settings) -> Pipeline:
    """The pipeline."""
    with Pipeline(name="killed", cache_dir=told.root, storage_options=told.storage_options) as pipeline:
        square = start_of(told)
        if tuple(told.steps) == STEPS[:2]:
            return pipeline
        group = Group(input_batch_size=GROUP, pad=told.pad, **noted(told, "group", 0.25))
        say = TextGeneration(
            name="say",
            llm=Saying(log=json.dumps([told.log, told.run]), seconds=told.seconds, pad=told.answer_pad),
            input_batch_size=4,
            **run_with(told, "say", replicas=2),
        )
        left = Left(input_batch_size=5, **noted(told, "left", 0.25))
        right = Right(input_batch_size=5, **noted(told, "right", 0.25))
        rank = Rank(**noted(told, "rank", 0.1))
        square >> group >> say >> [left, right] >> rank
    return pipeline


def wrong_rows(rows: Sequence[Row], told: Settings) -> Iterator[str]:
    """Say what is wrong with rows; nothing: they are what one sampling gives, each once and in order."""
    if tuple(told.steps) == STEPS[:2]:
        right_rows = [{"n": n, "square": n**2} for n in range(ROWS)]
        yield from (
            f"{row}, not {right}" for row, right in zip(rows, right_rows, strict=False) if row != right
        )
        return
    squares = [n**2 for n in range(ROWS)]
    answers = [str(row.get("generation")) for row in rows]
    for n, row in enumerate(rows):
        group = n - n % GROUP
        batch = answers[n - n % 5 : n - n % 5 + 5]
        right = {
            "square": squares[n] if n < ROWS else None,
            "group": sum(squares[group : group + GROUP]),
            **told_of({"n": n, **made_of(n, told.pad)}),
            "left": digest(answers[n]),
            "right": digest(*batch),
            "everything": digest(*answers),
            "rank": ROWS - n,
        }
        differing = [name for name, value in right.items() if row.get(name) != value]
        if differing or answers[n].split()[0] != str(n):
            yield f"row {n}: {differing}, answer {answers[n]!r}"


def main() -> None:
    told = Settings(**json.loads(sys.argv[1]))
    distiset = declare(told).run()
    rows = [told_of(row) for row in distiset["default"]["train"].to_list()]
    report = distiset.report.model_dump()
    Path(told.out).write_text(json.dumps({"rows": rows, "report": report}), encoding="utf-8")


if __name__ == "__main__":
    main()
