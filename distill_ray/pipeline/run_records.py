"""Writes what is remembered of a run. A record that cannot be written costs a warning, never the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distill_ray.cache import paths
from distill_ray.cache.manifest import Manifest
from distill_ray.cache.records import RunRecord
from distill_ray.cache.store import CacheStore
from distill_ray.errors import StorageError
from distill_ray.plan import Plan

_log = logging.getLogger(__name__)


@dataclass
class RunRecords:
    """The records of one run.

    Attributes:
        store: where they are kept; None where nothing is to be written.
        plan: what the run does.
        run: the run's id.
    """

    store: CacheStore | None
    plan: Plan
    run: str
    _warned: bool = field(default=False, init=False)

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file into the run's folder."""
        self._try(lambda store: store.write_run_file(self.run, name, data))

    def write_begun(self) -> None:
        """Remember the steps of a run that begins."""
        self._write(paths.latest_record(self.plan.pipeline), self._steps())

    def write_finished(self, leaves: Mapping[str, Manifest]) -> None:
        """Remember what a finished run came to."""
        plan = self.plan
        outputs = {
            name: {
                "class": manifest.function.class_name,
                "function": manifest.function.signature,
                "output_key": manifest.output_key,
                "rows": manifest.rows,
            }
            for name, manifest in leaves.items()
        }
        record = {
            "name": plan.pipeline,
            "signature": plan.signature,
            "aggregated_steps_signature": plan.aggregated,
            "run": self.run,
            "leaves": outputs,
        }
        self._write(paths.pipeline_record(plan.pipeline, plan.signature, plan.aggregated), record)
        self._write(paths.finished_record(plan.pipeline), self._steps())

    def _steps(self) -> dict[str, Any]:
        """The steps of the run: what a later plan compares its own with, to say what changed."""
        return RunRecord(self.plan.pipeline, self.run, self.plan.records).to_json()

    def _write(self, path: str, record: Mapping[str, Any]) -> None:
        self._try(lambda store: store.write_record(path, record))

    def _try(self, write: Callable[[CacheStore], None]) -> None:
        if self.store is None:
            return
        try:
            write(self.store)
        except StorageError as error:
            if not self._warned:
                _log.warning("The record of run %s is not complete: %s", self.run, error)
            self._warned = True
