"""A run of a pipeline whose last step is 100 times slower than its first, in a small object store.

Run as a script it prints, as JSON, what the driver, the actors and the object store held at most::

    python memory_run.py '{"root": ROOT, "rows": 10000, "store_mb": 100}'

Its rows are texts of 100 KB that hardly shrink when they are stored.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import psutil
import ray
from ray._private.internal_api import node_stats

from distill_ray.pipeline import Pipeline
from distill_ray.steps import GeneratorStep, GeneratorStepOutput, Step, StepInput, StepOutput

ROW_BYTES = 100_000
POOL_BYTES = 16 << 20
"""Texts are cut from this much: so far back no compression looks for what it has seen."""

FIRST_SECONDS = 0.00002
"""What the first step takes for a row, about: to copy it."""

LAST_SECONDS = 100 * FIRST_SECONDS


class Texts(GeneratorStep):
    """Rows of 100 KB, made as fast as they can be copied."""

    version: ClassVar[str | None] = "1"
    outputs: ClassVar[list[str]] = ["number", "text"]
    rows: int

    def load(self) -> None:
        super().load()
        self._pool = base64.b64encode(os.urandom(POOL_BYTES)).decode()

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        room = len(self._pool) - ROW_BYTES
        for start in range(offset, self.rows, self.batch_size):
            end = min(self.rows, start + self.batch_size)
            cuts = ((number, number * (ROW_BYTES + 3) % room) for number in range(start, end))
            yield (
                [{"number": n, "text": f"{n} {self._pool[cut : cut + ROW_BYTES]}"} for n, cut in cuts],
                end == self.rows,
            )


class Fast(Step):
    """Adds a number."""

    version: ClassVar[str | None] = "1"
    inputs: ClassVar[list[str]] = ["text"]
    outputs: ClassVar[list[str]] = ["length"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "length": len(row["text"])} for row in inputs]


class Slow(Step):
    """Keeps a number of each row, and takes its time."""

    version: ClassVar[str | None] = "1"
    inputs: ClassVar[list[str]] = ["number", "text", "length"]
    outputs: ClassVar[list[str]] = ["sum"]

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(LAST_SECONDS * len(inputs))
        yield [
            {"number": row["number"], "sum": row["length"] + int(row["text"][:9].split()[0])}
            for row in inputs
        ]


@dataclass
class Watcher:
    """Notes, several times a second, what the run's processes and its object store hold."""

    most: dict[str, float] = field(default_factory=dict)
    spilled_mb: float = 0.0

    def __post_init__(self) -> None:
        self._driver = psutil.Process()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.3):
            self._note("driver", _own_mb(self._driver))
            for child in self._driver.children(recursive=True):
                try:
                    if " ".join(child.cmdline()).startswith("ray::ReplicaActor"):
                        self._note(f"actor {child.pid}", _own_mb(child))
                except psutil.Error:
                    continue
            used, self.spilled_mb = _store_mb()
            self._note("object store", used)

    def _note(self, what: str, megabytes: float) -> None:
        self.most[what] = max(self.most.get(what, 0.0), round(megabytes, 1))


def _own_mb(process: psutil.Process) -> float:
    """Memory of a process's own; what it shares with others is the object store."""
    memory = process.memory_info()
    return float(memory.rss - memory.shared) / 1e6


def _store_mb() -> tuple[float, float]:
    """What the object store holds, and what it has ever spilled to the disk."""
    node = ray.nodes()[0]
    stats = node_stats(
        node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False
    ).store_stats
    return stats.object_store_bytes_used / 1e6, stats.spilled_bytes_total / 1e6


def main(root: str, rows: int, store_mb: int) -> dict[str, Any]:
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=store_mb * 1_000_000,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    with Pipeline(name="memory", cache_dir=root) as pipeline:
        texts = Texts(name="texts", rows=rows, batch_size=10)
        texts >> Fast(name="fast", input_batch_size=10) >> Slow(name="slow", input_batch_size=10)
    watcher, began = Watcher(), time.monotonic()
    distiset = pipeline.run(progress="none")
    seconds = time.monotonic() - began
    watcher.close()
    numbers = [row["sum"] - 2 * row["number"] for row in distiset["default"]["train"]]
    ray.shutdown()
    return {
        "rows": len(numbers),
        "right": all(ROW_BYTES < each < ROW_BYTES + 9 for each in (n + i for i, n in enumerate(numbers))),
        "seconds": round(seconds, 1),
        "most_mb": watcher.most,
        "spilled_mb": round(watcher.spilled_mb, 1),
        "steps": {name: step.decision for name, step in distiset.report.steps.items()},
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
