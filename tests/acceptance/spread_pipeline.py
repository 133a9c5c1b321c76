"""A step whose replica has GPUs on several nodes: it makes a process on each, as an engine would.

Run as a script it prints its rows, and what became of the placement groups, as one line of JSON::

    python spread_pipeline.py FOLDER GPUS
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PrivateAttr

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput, StepResources


class Spread(Step):
    """Says where its replica's processes are; dies at a certain row, once."""

    folder: str
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["group", "told", "places"]

    _told: dict[str, Any] = PrivateAttr(default_factory=dict)

    def load(self) -> None:
        super().load()
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        @ray.remote(num_cpus=0, num_gpus=1)
        def place() -> tuple[str, str | None]:
            return os.environ["NODE_NAME"], os.environ.get("CUDA_VISIBLE_DEVICES")

        group: Any = ray.util.get_current_placement_group()
        strategies = [PlacementGroupSchedulingStrategy(group, index) for index in range(group.bundle_count)]
        places = ray.get([place.options(scheduling_strategy=each).remote() for each in strategies])
        told = os.environ.get("DISTILL_RAY_SPREAD_GPUS")
        self._told = {"group": group.id.hex(), "told": told, "places": places}

    def process(self, rows: StepInput) -> StepOutput:
        grave = Path(self.folder, "died")
        if any(row["n"] == 12 for row in rows) and not grave.exists():
            grave.touch()
            os._exit(1)
        yield [{**row, **self._told} for row in rows]


def main(folder: str, gpus: str) -> None:
    with Pipeline(name="spread", cache_dir=f"{folder}/cache") as pipeline:
        load = LoadDataFromDicts(data=[{"n": n} for n in range(20)])
        resources = StepResources(gpus=int(gpus), cpus=0.5, across_nodes=True)
        load >> Spread(name="spread", folder=folder, input_batch_size=4, resources=resources)
    rows = list(pipeline.run()["default"]["train"])
    import ray

    deadline = time.monotonic() + 30
    while ray.available_resources().get("GPU", 0) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    states = {name: group["state"] for name, group in ray.util.placement_group_table().items()}
    print(json.dumps({"rows": rows, "states": states, "free": ray.available_resources()["GPU"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
