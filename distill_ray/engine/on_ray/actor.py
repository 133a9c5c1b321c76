"""The Ray actor around a `Worker`: one replica of a step, in a process of its own."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from ray import cloudpickle, get_runtime_context

from distill_ray.cache.writer import Block, WrittenPart
from distill_ray.engine.messages import Failure, Work, WorkRecord
from distill_ray.engine.working.worker import Worker
from distill_ray.environment import SPREAD_GPUS_VARIABLE
from distill_ray.errors import ProcessUnusableError


class ReplicaDeadError(RuntimeError):
    """What the driver sees of a `ProcessUnusableError`, which Ray does not carry: it replaces the replica."""


class ReplicaActor:
    """One replica. Never raises for a user's error: errors come back as values.

    ``__init__`` does nothing that can fail, since Ray would report that as the actor's death.
    """

    def __init__(self, name: str, *, sees_gpus: bool, spread_gpus: int = 0) -> None:
        self._name = name
        if spread_gpus:
            os.environ[SPREAD_GPUS_VARIABLE] = str(spread_gpus)
        if not sees_gpus:
            # Ray leaves the variable unset for actors without GPUs, who would then see all of them.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._worker: Worker | None = None

    def __repr__(self) -> str:
        """What Ray puts in front of each line that it prints, and what its dashboard shows."""
        return self._name

    def load(
        self, step: str, pickled_setup: bytes, replica: int, search_path: list[str]
    ) -> tuple[Failure | None, str]:
        """Make the worker and load the step; returns what went wrong, and the id of this node.

        Args:
            step: the step's name.
            pickled_setup: the `WorkerSetup`; where it cannot be rebuilt here, that is an answer and no death.
            replica: the replica's number.
            search_path: where the driver finds users' modules: of use where this node has these folders.
        """
        node = get_runtime_context().get_node_id()
        sys.path += [folder for folder in search_path if folder not in sys.path and Path(folder).is_dir()]
        try:
            setup = cloudpickle.loads(pickled_setup)
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            return Failure(step, _why_not_rebuilt(error), trace), node
        self._worker = Worker(setup, replica, has_process=True)
        return self._worker.load(), node

    def run(self, work: Work, *handed_over: Block) -> tuple[Block | None, WorkRecord]:
        """Compute; the rows stay in the object store, the record goes to the driver."""
        try:
            return self._loaded().run(work, handed_over)
        except ProcessUnusableError as error:
            raise ReplicaDeadError(str(error)) from error

    def flush(self) -> tuple[tuple[WrittenPart, ...], Failure | None]:
        """Write all rows that are left."""
        return self._loaded().flush()

    def close(self) -> None:
        """Unload the step, if it was loaded."""
        if self._worker is not None:
            self._worker.close()

    def _loaded(self) -> Worker:
        assert self._worker is not None, "load() comes first"
        return self._worker


def _why_not_rebuilt(error: Exception) -> str:
    what = f"it cannot be rebuilt on the node of its replica: {type(error).__name__}: {error}."
    if isinstance(error, ImportError):
        return f"{what} Ship the module with the job (`ray job submit --working-dir`), or install it there."
    return what
