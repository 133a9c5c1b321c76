"""Writes what is remembered of a run. A record that cannot be written costs a warning, never the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distill_ray.cache import paths
from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.manifest import Manifest
from distill_ray.cache.records import RunRecord
from distill_ray.cache.store import CacheStore
from distill_ray.cache.use_notes import note_of
from distill_ray.errors import StorageError
from distill_ray.plan import Plan

_log = logging.getLogger(__name__)


@dataclass
class RunRecords:
    """The records of one run.

    Attributes:
        catalog: where they are kept.
        plan: what the run does.
        run: the run's id.
        silent: nothing is to be written.
    """

    catalog: StoreCatalog
    plan: Plan
    run: str
    silent: bool = False
    _warned: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._record = RunRecord(self.plan.pipeline, self.run, self.plan.records)
        self._note = note_of(self._record)

    def are_noted(self) -> bool:
        """Whether the run computes nothing, and another one has left today what this one would."""
        return self.plan.complete and self._note is not None and self.catalog.is_noted(self._note)

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file into the run's folder."""
        self._try(lambda store: store.write_run_file(self.run, name, data))

    def write_begun(self) -> None:
        """Remember the steps of a run that begins."""
        self._try(self._remove_other_note)
        self._write(paths.latest_record(self.plan.pipeline), self._record.to_json())

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
        self._write(paths.finished_record(plan.pipeline), self._record.to_json())
        if self._note is not None and not self._warned:
            self._write(self._note.path, {"run": self.run, "pipeline": plan.pipeline})

    def _remove_other_note(self, store: CacheStore) -> None:
        """From here on the records say something else than the note of the runs before stands for."""
        before = note_of(self.catalog.last_runs(self.plan.pipeline).latest)
        if before is not None and before != self._note:
            store.own.delete([before.path])

    def _write(self, path: str, record: Mapping[str, Any]) -> None:
        self._try(lambda store: store.write_record(path, record))

    def _try(self, write: Callable[[CacheStore], None]) -> None:
        if self.silent:
            return
        try:
            write(self.catalog.store)
        except StorageError as error:
            if not self._warned:
                _log.warning("The record of run %s is not complete: %s", self.run, error)
            self._warned = True
