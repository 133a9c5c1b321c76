"""A pipeline that runs for long, for the soak: a step of each kind, and rows that are the same in every run.

Run as a script it writes a digest of its rows, and what its report says, to a file as JSON::

    python soaked_pipeline.py '{"root": ROOT, "out": FILE, "rows": 9600, "seconds": 0.1}'
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from distill_ray.models import LLM, ChatType, GenerateOutput
from distill_ray.pipeline import Pipeline
from distill_ray.steps import StepInput, StepOutput, StepResources
from distill_ray.steps.base import GeneratorStep, GlobalStep, Step
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import GeneratorStepOutput, Unsigned

PAD = 1_000
"""Characters that each row carries."""

BATCH = 16
CPUS = 0.2


@dataclass(frozen=True)
class Soaked:
    """What a run is told.

    Attributes:
        root: the cache root.
        out: where the digest is written.
        rows: how many there are.
        seconds: what a batch costs each step that takes its time; 0 for the run that is not disturbed.
        storage_options: of the root.
    """

    root: str
    out: str
    rows: int
    seconds: float = 0.0
    storage_options: dict[str, Any] = field(default_factory=dict)


class Numbers(GeneratorStep):
    """Rows of a number and an instruction, at about the speed at which they are used."""

    rows: int
    seconds: Unsigned[float] = 0.0
    outputs: ClassVar[list[str]] = ["n", "pad", "instruction"]

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, self.rows, self.batch_size):
            time.sleep(self.seconds / 4)
            end = min(start + self.batch_size, self.rows)
            rows = [{"n": n, "pad": padding(n), "instruction": f"Say {n}"} for n in range(start, end)]
            yield rows, end == self.rows


class Squares(Step):
    """Row by row."""

    row_wise = True
    seconds: Unsigned[float] = 0.0
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["square"]

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(self.seconds)
        yield [{**row, "square": row["n"] ** 2} for row in inputs]


class Groups(Step):
    """Batch by batch: each row knows the sum of its batch."""

    seconds: Unsigned[float] = 0.0
    inputs: ClassVar[list[str]] = ["square"]
    outputs: ClassVar[list[str]] = ["sum"]

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(self.seconds)
        total = sum(row["square"] for row in inputs)
        yield [{**row, "sum": total} for row in inputs]


class Echoes(LLM):
    """Answers with a digest of what it is asked, after a while."""

    seconds: Unsigned[float] = 0.0

    @property
    def model_name(self) -> str:
        return "echoes"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        assert num_generations == 1
        assert not kwargs
        time.sleep(self.seconds)
        return [{"generations": [_digest(chat[-1]["content"])]} for chat in inputs]


class Ranks(GlobalStep):
    """All rows at once, in another order."""

    inputs: ClassVar[list[str]] = ["n", "generation", "sum"]
    outputs: ClassVar[list[str]] = ["rank"]

    def process(self, inputs: StepInput) -> StepOutput:
        ranked = sorted(inputs, key=lambda row: (row["generation"], row["n"]))
        yield [{**row, "rank": rank} for rank, row in enumerate(ranked)]


def padding(n: int) -> str:
    """What a row carries on: hardly to be compressed."""
    return hashlib.shake_256(str(n).encode()).hexdigest(PAD // 2)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def declare(told: Soaked) -> Pipeline:
    """The pipeline: two ways that come together again."""

    def replicas(count: int) -> dict[str, Any]:
        return {"resources": StepResources(replicas=count, cpus=CPUS)}

    slow = {"seconds": told.seconds, "input_batch_size": BATCH}
    with Pipeline(name="soaked", cache_dir=told.root, storage_options=told.storage_options) as pipeline:
        numbers = Numbers(rows=told.rows, batch_size=BATCH, seconds=told.seconds, **replicas(1))
        squares = Squares(**slow, **replicas(3))
        groups = Groups(**slow, **replicas(3))
        say = TextGeneration(
            name="say", llm=Echoes(seconds=told.seconds), input_batch_size=BATCH, **replicas(3)
        )
        numbers >> squares >> groups >> say >> Ranks(**replicas(1))
    return pipeline


def main() -> None:
    told = Soaked(**json.loads(sys.argv[1]))
    distiset = declare(told).run()
    content = hashlib.sha256()
    rows = 0
    for row in distiset["default"]["train"]:
        content.update(json.dumps(row, sort_keys=True).encode())
        rows += 1
    found = {"rows": rows, "content": content.hexdigest(), "report": distiset.report.model_dump()}
    Path(told.out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
