"""A chain of steps whose rows say when, and in which process, each was made: to see who ran beside whom.

Run as a script it prints its rows as one line of JSON::

    python scarce_pipeline.py '{"one": {"gpus": 1}, "two": {"gpus": 1}}' CACHE_DIR [SECONDS A BATCH]
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepInput, StepOutput, StepResources
from distill_ray.steps.base import Step

ROWS = 40


class Timed(Step):
    """Adds a column, named as the step, that says when and where it was made."""

    column: str
    seconds: float = 0.0
    inputs: ClassVar[list[str]] = ["n"]
    _loaded: float = 0.0

    @property
    def outputs(self) -> list[str]:
        return [self.column]

    def load(self) -> None:
        self._loaded = time.time()

    def process(self, rows: StepInput) -> StepOutput:
        time.sleep(self.seconds)
        where = {
            "loaded": self._loaded,
            "made": time.time(),
            "process": os.getpid(),
            "node": os.environ.get("NODE_NAME", ""),
        }
        yield [{**row, self.column: where} for row in rows]


def declare(steps: Mapping[str, Mapping[str, Any]], cache_dir: str, seconds: float = 0.0) -> Pipeline:
    """A chain of steps by their names, with what each declares."""
    with Pipeline(name="scarce", cache_dir=cache_dir) as pipeline:
        last: Any = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(ROWS)])
        for name, declared in steps.items():
            resources = StepResources.model_validate(declared)
            step = Timed(name=name, column=name, seconds=seconds, input_batch_size=4, resources=resources)
            last >> step
            last = step
    return pipeline


def rows_of(pipeline: Pipeline, **arguments: Any) -> list[dict[str, Any]]:
    rows = pipeline.run(**arguments)["default"]["train"].to_list()
    assert [row["n"] for row in rows] == list(range(ROWS))
    return rows


def one_after_the_other(rows: list[dict[str, Any]], *steps: str) -> bool:
    """Whether each of these steps was loaded once, when the one before had made its last row."""
    once = all(len({row[step]["process"] for row in rows}) == 1 for step in steps)
    return once and all(
        max(row[first]["made"] for row in rows) <= min(row[then]["loaded"] for row in rows)
        for first, then in pairwise(steps)
    )


def main() -> None:
    steps, cache_dir, *seconds = sys.argv[1:]
    pipeline = declare(json.loads(steps), cache_dir, float(seconds[0]) if seconds else 0.0)
    print(json.dumps({"rows": rows_of(pipeline)}))


if __name__ == "__main__":
    main()
