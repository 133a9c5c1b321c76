"""What is remembered beside rows: the steps of a pipeline's last runs, and what a function was made from.

Records are advisory: one that is gone or cannot be read costs an explanation, never a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill_ray.cache import paths
from distill_ray.cache.paths import FunctionId
from distill_ray.storage import Storage


@dataclass(frozen=True)
class StepRecord:
    """A step as a run had it.

    Attributes:
        function: the step function.
        output_key: what named its output.
        predecessors: the steps whose rows flowed into it.
        limit: the bound on what it made for each unit, where it has one.
        batch_size: rows in each batch, where batches are its units.
        routing: how the rows that it is given are routed, in words; None: they are not.
    """

    function: FunctionId
    output_key: str
    predecessors: tuple[str, ...]
    limit: int | None = None
    batch_size: int | None = None
    routing: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """The steps of a run.

    Attributes:
        pipeline: the pipeline's name.
        run: the run's id.
        steps: by name.
    """

    pipeline: str
    run: str
    steps: Mapping[str, StepRecord]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        steps = {
            name: {
                "class": step.function.class_name,
                "function": step.function.signature,
                "output_key": step.output_key,
                "predecessors": list(step.predecessors),
                "limit": step.limit,
                "batch_size": step.batch_size,
                "routing": step.routing,
            }
            for name, step in self.steps.items()
        }
        return {"name": self.pipeline, "run": self.run, "steps": steps}

    @classmethod
    def from_json(cls, record: Any) -> RunRecord:
        """What `to_json` gave.

        Raises:
            TypeError, KeyError, AttributeError: it is something else.
        """
        steps = {
            name: StepRecord(
                FunctionId(step["class"], step["function"]),
                step["output_key"],
                tuple(step["predecessors"]),
                step["limit"],
                step["batch_size"],
                step.get("routing"),
            )
            for name, step in record["steps"].items()
        }
        return cls(record["name"], record["run"], steps)


@dataclass(frozen=True)
class LastRuns:
    """The last runs of a pipeline.

    Attributes:
        latest: the last one that began, whatever became of it.
        finished: the last one that finished.
    """

    latest: RunRecord | None = None
    finished: RunRecord | None = None


@dataclass(frozen=True)
class FunctionRecord:
    """What a step function was made from.

    Attributes:
        preimage: the encoded tree.
        code: the normal form of each piece of user code, by name.
    """

    preimage: Any
    code: Mapping[str, str]


def read_last_runs(storage: Storage, pipeline: str) -> LastRuns:
    """What is remembered of the last runs of the pipeline of this name."""
    return LastRuns(
        _read_run(storage, paths.latest_record(pipeline)), _read_run(storage, paths.finished_record(pipeline))
    )


def _read_run(storage: Storage, path: str) -> RunRecord | None:
    try:
        return RunRecord.from_json(json.loads(storage.read(path)))
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_function_record(storage: Storage, function: FunctionId) -> FunctionRecord | None:
    """What is remembered of what the function was made from."""
    try:
        record = json.loads(storage.read(function.signature_file))
        return FunctionRecord(record["preimage"], dict(record["code"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def has_run_output(storage: Storage, run: str, output_key: str) -> bool:
    """Whether a run kept this output to itself, since rows failed on the way to it."""
    try:
        storage.read(paths.run_output(run, output_key))
    except FileNotFoundError:
        return False
    return True
