"""The runs of a root: which outputs each used, and which belong to it only."""

from __future__ import annotations

import calendar
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distill_ray.cache import paths
from distill_ray.cache.in_order import in_order
from distill_ray.cache.inventory import (
    Damage,
    Root,
    StoredOutput,
    Tell,
    read_output,
    read_record,
    record_paths,
    sort_out,
)
from distill_ray.cache.store import CacheStore


@dataclass(frozen=True)
class StoredRun:
    """What is stored of one run.

    Attributes:
        run: its id.
        size: bytes of its folder.
        beats: whether it has a heartbeat.
        pipeline: its pipeline's name; empty where it left no record.
        outputs: keys of the outputs that its record names.
        private: outputs that belong to it only.
        damaged: what of it cannot be read.
    """

    run: str
    size: int
    beats: bool
    pipeline: str = ""
    outputs: frozenset[str] = frozenset()
    private: tuple[StoredOutput, ...] = ()
    damaged: tuple[Damage, ...] = ()


@dataclass
class Uses:
    """Which runs used which outputs: the newest run of each, by output key, and the pipelines' names."""

    last: dict[str, str] = field(default_factory=dict)
    pipelines: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, run: StoredRun) -> None:
        """Take in what a run's record says."""
        for key in run.outputs:
            if begun(run.run) >= begun(self.last.get(key, run.run)):
                self.last[key] = run.run
            self.pipelines[key].add(run.pipeline)

    def last_use(self, output: StoredOutput) -> str:
        """The newest run that used an output: the one that wrote it, where no record names another."""
        used = self.last.get(output.output_key, output.run)
        return used if begun(used) >= begun(output.run) else output.run


def begun(run: str) -> float:
    """When a run began, in seconds since 1970, as its id says; infinity where it does not say."""
    try:
        return float(calendar.timegm(time.strptime(run[:15], "%Y%m%dT%H%M%S")))
    except ValueError:
        return math.inf


def walk_runs(root: Root) -> Iterator[StoredRun]:
    """Give each run of a root."""
    yield from in_order(lambda run: read_run(root.store, run), root.store.storage.folders(paths.RUNS_FOLDER))


def read_uses(root: Root, tell: Tell) -> tuple[Uses, list[StoredOutput]]:
    """Say who used what, and which outputs belong to one run only."""
    uses = Uses()
    private: list[StoredOutput] = []
    for run in walk_runs(root):
        tell(f"run {run.run}")
        uses.add(run)
        private += run.private
    return uses, private


def read_run(store: CacheStore, run: str) -> StoredRun:
    """Read a run's record and the outputs that belong to it only."""
    folder = paths.run_folder(run)
    sizes = store.storage.sizes(folder)
    outputs_folder = paths.run_outputs_folder(run)
    private = store.storage.sizes(outputs_folder)
    found = [read_output(store, path, private=True) for path in record_paths(outputs_folder, private)]
    outputs, damaged = sort_out(found)
    record = read_record(store, f"{folder}/{paths.RUN_FILE}") if paths.RUN_FILE in sizes else None
    if isinstance(record, Damage):
        damaged.append(record)
        record = None
    pipeline, keys = _named_outputs(record or {})
    return StoredRun(
        run=run,
        size=sum(sizes.values()) + sum(private.values()),
        beats=paths.HEARTBEAT_FILE in sizes,
        pipeline=pipeline,
        outputs=keys,
        private=tuple(outputs),
        damaged=tuple(damaged),
    )


def _named_outputs(record: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """The pipeline and the output keys that a run's record names; one of another version names none."""
    steps = record.get("steps")
    named = steps.values() if isinstance(steps, dict) else ()
    keys = {step.get("output_key") for step in named if isinstance(step, dict)}
    return str(record.get("pipeline") or ""), frozenset(key for key in keys if key and isinstance(key, str))
