"""Pipelines whose rows say where they were made: on which node of a cluster, and what could be seen there.

Run as a script it prints its rows, and what its report says, as one line of JSON::

    python placed_pipeline.py placed CACHE_DIR STORAGE_OPTIONS
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepInput, StepOutput, StepResources
from distill_ray.steps.base import Step

ROWS = 40

PLACES: dict[str, StepResources] = {
    "anywhere": StepResources(cpus=0.5),
    "plain": StepResources(resources={"plain": 1}),
    "one_gpu": StepResources(gpus=1, accelerator_type="A100", replicas=2),
    "both_gpus": StepResources(gpus=2),
    "half_gpu": StepResources(gpus=0.5, accelerator_type="L4", replicas=2),
    "ssd": StepResources(resources={"ssd": 0.5}, cpus=0.5),
    "ssd_again": StepResources(resources={"ssd": 0.5}),
}
"""What the steps declare, by their names: for the nodes of the fixture `cluster`."""


class Place(Step):
    """Adds a column, named as the step, that says where it was made."""

    column: str
    inputs: ClassVar[list[str]] = ["n"]

    @property
    def outputs(self) -> list[str]:
        return [self.column]

    def process(self, rows: StepInput) -> StepOutput:
        where = {
            "node": os.environ["NODE_NAME"],
            "process": os.getpid(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "home": os.environ["HOME"],
            "folder": str(Path.cwd()),
        }
        yield [{**row, self.column: where} for row in rows]


def declare(steps: Sequence[str], cache_dir: str, storage_options: dict[str, Any]) -> Pipeline:
    """A chain of these steps."""
    with Pipeline(name="placed", cache_dir=cache_dir, storage_options=storage_options) as pipeline:
        last: Any = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(ROWS)])
        for name in steps:
            step = Place(name=name, column=name, input_batch_size=4, resources=PLACES[name])
            last >> step
            last = step
    return pipeline


def main() -> None:
    steps, cache_dir, options = sys.argv[1:]
    distiset = declare(steps.split(","), cache_dir, json.loads(options)).run()
    rows = distiset["default"]["train"].to_list()
    print(json.dumps({"rows": rows, "report": distiset.report.model_dump()}))


if __name__ == "__main__":
    main()
