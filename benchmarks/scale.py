"""What a batch costs the driver, from 10 to 1,000 replicas, 10 to 200 steps, 1,000 to 100,000 batches.

The driver is the real one: a plan is carried out with its scheduler, its events, its report and recorder.
Only the actors are simulated, since a thousand processes do not fit on one machine: a replica takes a second
of simulated time for each batch and answers with the record that a real one would give. What Ray itself takes
for a call, on top of this, is measured with real actors that do nothing. Prints JSON.

    python benchmarks/scale.py
    python benchmarks/scale.py --batches 1000 5000 --replicas 10 100 --steps 10 --at 2000  # smaller

Each figure is the CPU time of the driver's process divided by the batches that all steps were given, every
case in a process of its own; what the simulation itself takes is left out. ``ceiling`` is what follows from
the worst of them: batches a second that one driver can dispatch, Ray's part included, the rows which that is,
and how many GPUs it keeps busy where each takes a second for a batch.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.actions import ReadKeys, SendWork
from distill_ray.engine.execution import execute
from distill_ray.engine.keys import PartRows
from distill_ray.engine.messages import Event, Flushed, ReplicaReady, WorkDone, WorkRecord
from distill_ray.engine.run_settings import RunSettings
from distill_ray.engine.scheduling.room import Place
from distill_ray.engine.working.worker import WorkerSetup
from distill_ray.events import RunEvent, RunStarted, StepDecided
from distill_ray.observe.recorder import Recorder
from distill_ray.observe.report import RunReport
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.pipeline import planned
from distill_ray.resources import StepResources
from distill_ray.steps import GeneratorStep, GeneratorStepOutput, Step, StepInput, StepOutput

BATCH_ROWS = 50
BATCH_SECONDS = 1.0
PART_SECONDS = 5.0
SOURCE_BATCHES = 16
"""Batches that the source makes in a call."""


class Source(GeneratorStep):
    """Rows; simulated."""

    @property
    def outputs(self) -> list[str]:
        return ["row"]

    def process(self, offset: int = 0) -> GeneratorStepOutput:  # never called
        yield [{"row": offset}], True


class Slow(Step):
    """A step that takes a second for each batch; simulated."""

    number: int = 0

    @property
    def inputs(self) -> list[str]:
        return ["row"]

    def process(self, inputs: StepInput) -> StepOutput:  # never called
        yield inputs


class SlowEach(Slow):
    """The same, row by row."""

    row_wise = True


@dataclass
class Simulated:
    """A replica: when it is done with what it was given, and what it has not written yet."""

    free_at: float = 0.0
    written_at: float = 0.0
    parts: int = 0
    rows: int = 0
    unwritten: list[tuple[int, int]] = field(default_factory=list)


class SimulatedExecutor:
    """Answers as replicas would, in the order of a simulated clock.

    Args:
        rows: how many the source gives.
        batch_seconds: what the source takes for each of its batches.

    Attributes:
        own_seconds: CPU time that answering took.
        calls: how many calls it answered.
    """

    def __init__(self, rows: int, batch_seconds: float) -> None:
        self._rows = rows
        self._batch_seconds = batch_seconds
        self.own_seconds = 0.0
        self.calls = 0
        self._now = 0.0
        self._order = 0
        self._replicas: dict[tuple[str, int], Simulated] = {}
        self._due: list[tuple[float, int, Event]] = []
        self._at_once: deque[Event] = deque()
        self._generated = 0

    def nodes(self, steps: Mapping[str, StepResources]) -> None:
        """No limit."""

    def ask_for_nodes(self, places: tuple[tuple[str, Mapping[str, float]], ...]) -> None:
        assert not places

    def live_bytes(self) -> int:
        return 1 << 30

    def start(self, step: str, replica: int, setup: WorkerSetup, place: Place = ()) -> None:
        del setup, place
        self._replicas[step, replica] = Simulated(written_at=self._now)
        self._at(self._now, ReplicaReady(step, replica))

    def send(self, work: SendWork) -> None:
        started = time.process_time()
        self.calls += 1
        replica = self._replicas[work.step, work.replica]
        if batches := work.work.batches:
            counts = tuple(rows for batch in batches for rows in _units(batch.rows, batch.key))
            seconds = BATCH_SECONDS * len(batches)
        else:
            made = min(SOURCE_BATCHES * BATCH_ROWS, self._rows - self._generated)
            self._generated += made
            counts = (BATCH_ROWS,) * (made // BATCH_ROWS)
            seconds = self._batch_seconds * len(counts)
        record = self._record(work, replica, counts, seconds)
        self._at(replica.free_at, WorkDone(work.step, work.replica, work.work.block, record))
        self.own_seconds += time.process_time() - started

    def _record(
        self, work: SendWork, replica: Simulated, counts: tuple[int, ...], seconds: float
    ) -> WorkRecord:
        replica.free_at = max(replica.free_at, self._now) + seconds
        rows = sum(counts)
        replica.unwritten.append((work.work.block, replica.rows))
        replica.rows += rows
        written: tuple[WrittenPart, ...] = ()
        if replica.free_at - replica.written_at > PART_SECONDS:
            written = self._cut(work.step, work.replica, replica)
        seed = hashlib.sha256(f"{work.step} {work.work.block}".encode()).digest()
        return WorkRecord(
            batches=len(work.work.batches) or len(counts),
            counts=counts,
            digests=(seed * (rows * DIGEST_SIZE // len(seed) + 1))[: rows * DIGEST_SIZE],
            nbytes=rows * 100,
            seconds=seconds,
            last=not work.work.batches and self._generated == self._rows,
            written=written,
        )

    def flush(self, step: str, replica: int) -> None:
        each = self._replicas[step, replica]
        self._at(self._now, Flushed(step, replica, self._cut(step, replica, each)))

    def _cut(self, step: str, number: int, replica: Simulated) -> tuple[WrittenPart, ...]:
        if not replica.unwritten:
            return ()
        replica.parts += 1
        entry = PartEntry(f"{step}-{number}-{replica.parts}-0000000000000000", replica.rows * 50)
        part = WrittenPart(entry, tuple(replica.unwritten))
        replica.unwritten, replica.rows, replica.written_at = [], 0, replica.free_at
        return (part,)

    def read_keys(self, asked: ReadKeys, rows: PartRows | None) -> None:
        raise AssertionError(f"nothing is stored, so that no keys are asked for: {asked}, {rows}")

    def stop(self, step: str, replica: int) -> None:
        del self._replicas[step, replica]

    def kill(self, step: str, replica: int) -> None:
        """End a replica in which something does not come back: here everything does."""
        self.stop(step, replica)

    def abandon(self, step: str, replica: int) -> None:
        del self._replicas[step, replica]

    def release(self, blocks: tuple[int, ...]) -> None:
        pass

    def submit(self, event: Event) -> None:
        self._at_once.append(event)

    def _at(self, when: float, event: Event) -> None:
        self._order += 1
        heapq.heappush(self._due, (when, self._order, event))

    def next_event(self) -> Event:
        while not self._at_once and not self._due:
            time.sleep(0.001)  # a manifest is being written
        if self._at_once:
            return self._at_once.popleft()
        self._now, _, event = heapq.heappop(self._due)
        return event

    def close(self, *, at_once: bool = False) -> None:
        pass


def _units(rows: int, key: bytes) -> tuple[int, ...]:
    return (rows,) if key else (1,) * rows


def simulate(steps: int, replicas: int, batches: int, kind: str) -> dict[str, Any]:
    """Run a chain of steps behind a source, with so many replicas and batches in all."""
    each, batches_each = max(1, replicas // steps), batches // steps
    rows = batches_each * BATCH_ROWS
    with tempfile.TemporaryDirectory() as folder:
        plan, store = planned(_chain(folder, steps, each, kind))
        executor = SimulatedExecutor(rows, BATCH_SECONDS / each)
        report, recorder = RunReport(), Recorder(_drop)

        def emit(event: RunEvent) -> None:
            report.listen(event)
            recorder.listen(event)

        decided = [StepDecided(step.name, step.decision, step.reason, 0) for step in plan.steps]
        emit(RunStarted("scale", plan.pipeline, folder, tuple(decided)))
        store.claim()
        cpu, wall = time.process_time(), time.perf_counter()
        manifests = execute(plan, store, executor, RunSettings("20260101T000000-0"), emit)
        cpu, wall = time.process_time() - cpu - executor.own_seconds, time.perf_counter() - wall
    assert all(manifest.rows == rows for manifest in manifests.values())
    return {
        "kind": kind,
        "steps": steps,
        "replicas": each * steps,
        "batches": batches_each * steps,
        "driver_ms_a_batch": round(1000 * cpu / (batches_each * steps), 4),
        "calls": executor.calls,
        "seconds": round(wall, 2),
        "driver_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _chain(folder: str, steps: int, replicas: int, kind: str) -> Pipeline:
    step_class = SlowEach if kind == "row-wise" else Slow
    resources = StepResources(replicas=replicas)
    with Pipeline(name="scale", cache_dir=folder) as pipeline:
        last: Source | Slow = Source(name="source", batch_size=BATCH_ROWS)
        for number in range(steps):
            name = f"step_{number}"
            step = step_class(name=name, number=number, input_batch_size=BATCH_ROWS, resources=resources)
            last >> step
            last = step
    return pipeline


def _drop(name: str, data: bytes) -> None:
    """Where the recorder writes to."""


class Echo:
    """A real actor that does nothing."""

    def run(self, work: bytes) -> tuple[None, bytes]:
        return None, work


def real_calls(actors: int, calls: int) -> dict[str, Any]:
    """What Ray takes of the driver's CPU for a call of an actor that returns rows and record apart."""
    import ray

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    actor: Any = ray.remote(Echo)
    pool = [actor.options(num_cpus=0.1).remote() for _ in range(actors)]
    work = bytes(1_000)
    ray.get([each.run.options(num_returns=2).remote(work)[1] for each in pool])
    cpu, in_flight = time.process_time(), deque[Any]()
    for number in range(calls):
        in_flight.append(pool[number % actors].run.options(num_returns=2).remote(work)[1].future())
        if len(in_flight) > 2 * actors:
            in_flight.popleft().result()
    for each in in_flight:
        each.result()
    cpu = time.process_time() - cpu
    ray.shutdown()
    return {"actors": actors, "calls": calls, "driver_ms_a_call": round(1000 * cpu / calls, 4)}


def cases(options: argparse.Namespace) -> list[tuple[int, int, int, str]]:
    """Steps, replicas, batches and kind of each case: one of them changes at a time."""
    steps, batches = options.steps, options.batches
    found = [(1, replicas, options.at, "batch") for replicas in options.replicas]
    found += [(number, 2 * number, options.at, "batch") for number in steps]
    found += [(1, 100, number, "batch") for number in batches]
    found += [(1, max(options.replicas), options.at, "row-wise")]
    found += [(max(steps), max(options.replicas), options.at, "batch")]
    return found


def in_own_process(*arguments: str) -> dict[str, Any]:
    """Measure one case by itself."""
    command = [sys.executable, __file__, *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[10, 100, 1_000])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--batches", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--at", type=int, default=20_000, help="batches where something else changes")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        steps, replicas, batches, kind = options.case.split(",")
        if kind == "real":
            found = real_calls(int(replicas), int(batches))
        else:
            found = simulate(int(steps), int(replicas), int(batches), kind)
        json.dump(found, sys.stdout)
        return
    load = os.getloadavg()[0]
    measured = [in_own_process("--case", ",".join(map(str, case))) for case in cases(options)]
    ray_part = in_own_process("--case", "1,10,5000,real")
    worst = max(case["driver_ms_a_batch"] for case in measured) + ray_part["driver_ms_a_call"]
    ceiling = {
        "driver_ms_a_batch": round(worst, 4),
        "batches_a_second": round(1000 / worst),
        "rows_a_second": round(1000 / worst * BATCH_ROWS),
        "gpus_at_a_second_a_batch": round(1000 / worst * BATCH_SECONDS),
    }
    result = {"load": round(load, 1), "cases": measured, "ray": ray_part, "ceiling": ceiling}
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
