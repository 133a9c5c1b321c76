"""A chain of a row-wise, a plain and another row-wise step that count what they compute, on any storage."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from distill_ray.distiset import Distiset
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from distill_ray.storage import Storage, open_storage
from distill_ray.types import Row

ROWS = 200
FIRST = 100
"""Rows of the run before: what each of the two made of them is in a part of its own."""

COMPUTED: Counter[str] = Counter()
"""Rows that each step has computed, in this process, since the last run began."""

MOMENTS: dict[tuple[str, int], Callable[[], None]] = {}
"""What is to happen when a step comes to a row: once."""


def reached(step: str, rows: StepInput) -> None:
    COMPUTED[step] += len(rows)
    for row in rows:
        MOMENTS.pop((step, row["n"]), lambda: None)()


class Double(Step):
    """Row by row."""

    version: ClassVar[str | None] = "1"
    row_wise: ClassVar[bool] = True
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["double"]

    def process(self, rows: StepInput) -> StepOutput:
        reached("double", rows)
        yield [{**row, "double": 2 * row["n"]} for row in rows]


class Add(Step):
    """Batch by batch."""

    version: ClassVar[str | None] = "1"
    outputs: ClassVar[list[str]] = ["added"]

    def process(self, rows: StepInput) -> StepOutput:
        reached("add", rows)
        yield [{**row, "added": 1 + row["double"]} for row in rows]


class Last(Step):
    """Row by row again; another ``amount`` makes it another function."""

    version: ClassVar[str | None] = "1"
    row_wise: ClassVar[bool] = True
    inputs: ClassVar[list[str]] = ["n", "added"]
    outputs: ClassVar[list[str]] = ["last"]
    amount: int = 0

    def process(self, rows: StepInput) -> StepOutput:
        reached("last", rows)
        yield [{**row, "last": row["added"] + self.amount} for row in rows]


def expected_rows(amount: int = 0) -> list[Row]:
    """What a run must give."""
    return [{"n": n, "double": 2 * n, "added": 2 * n + 1, "last": 2 * n + 1 + amount} for n in range(ROWS)]


@dataclass(frozen=True)
class Root:
    """A cache root and the runs of the chain on it."""

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def storage(self) -> Storage:
        return open_storage(self.url, self.storage_options)

    def declare(self, rows: int = ROWS, amount: int = 0) -> Pipeline:
        with Pipeline(name="chain", cache_dir=self.url, storage_options=self.storage_options) as pipeline:
            load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(rows)], batch_size=50)
            double = Double(name="double", input_batch_size=10)
            add = Add(name="add", input_batch_size=20)
            load >> double >> add >> Last(name="last", input_batch_size=10, amount=amount)
        return pipeline

    def run(self, rows: int = ROWS, amount: int = 0) -> Distiset:
        COMPUTED.clear()
        return self.declare(rows, amount).run(engine="inline", progress="none")

    def fill(self) -> None:
        """Run on the first rows, then on all."""
        self.run(FIRST)
        self.run()

    def paths(self, pattern: str) -> list[str]:
        """Objects whose path fits a pattern, sorted: of parts and runs the oldest first."""
        return [path for path in self._below("", pattern.count("/")) if fnmatch(path, pattern)]

    def part_with(self, row: int, pattern: str) -> str:
        """The part that holds a row, of those whose path fits a pattern; waits until there is one."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for path in self.paths(pattern):
                table = pq.read_table(pa.BufferReader(self.storage.read(path)), columns=["n"])
                if row in table.column("n").to_pylist():
                    return path
            time.sleep(0.01)
        raise TimeoutError(f"no part of {pattern} holds row {row}")

    def _below(self, folder: str, depth: int) -> list[str]:
        storage = self.storage
        if not depth:
            return sorted(f"{folder}{name}" for name in storage.sizes(folder.rstrip("/")))
        folders = storage.folders(folder.rstrip("/"))
        return [path for name in folders for path in self._below(f"{folder}{name}/", depth - 1)]


def copied(root: Root, folder: Path) -> Root:
    """A copy of a root on this disk."""
    shutil.copytree(root.url, folder)
    return Root(str(folder))


def rows_of(distiset: Distiset) -> list[Row]:
    rows: list[Row] = distiset["default"]["train"].to_list()
    return rows
