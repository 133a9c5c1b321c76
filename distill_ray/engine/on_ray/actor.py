"""The Ray actor around a `Worker`: one replica of a step, in a process of its own."""

from __future__ import annotations

import os

import pyarrow as pa

from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.messages import Failure, Work, WorkRecord
from distill_ray.engine.worker import Worker, WorkerSetup


class ReplicaActor:
    """One replica. Never raises for a user's error: errors come back as values.

    ``__init__`` does nothing that can fail, since Ray would report that as the actor's death.
    """

    def __init__(self, *, sees_gpus: bool) -> None:
        if not sees_gpus:
            # Ray leaves the variable unset for actors without GPUs, who would then see all of them.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._worker: Worker | None = None

    def load(self, setup: WorkerSetup, replica: int) -> Failure | None:
        """Make the worker and load the step."""
        self._worker = Worker(setup, replica)
        return self._worker.load()

    def run(self, work: Work, *tables: pa.Table) -> tuple[pa.Table | None, WorkRecord]:
        """Compute; the rows stay in the object store, the record goes to the driver."""
        return self._loaded().run(work, tables)

    def flush(self) -> tuple[tuple[WrittenPart, ...], Failure | None]:
        """Write all rows that are left."""
        return self._loaded().flush()

    def close(self) -> None:
        """Unload the step."""
        self._loaded().close()

    def _loaded(self) -> Worker:
        assert self._worker is not None, "load() comes first"
        return self._worker
