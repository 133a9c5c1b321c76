"""What it takes to find a million stored units of a row-wise step again.

A local root holds a million units of a step that reads one of its input's three columns, in parts with real
footers, and four outputs of the step above it, a million rows each: the rows as they were, and the same with
another value in a column that the step does not read; each in the order of the units and shuffled. Every row
is looked up, as a run does it, by the scheduler: by all of its columns, where that finds nothing by the
columns that the step reads. The digests of those are worked out by other processes, one for each core, as
tasks on Ray do it. What a run would do with the rows after that (put them together anew, on actors) is not
done here.

Measured beside it, in the same run and on the same machine: pyarrow's ``is_in`` over the same keys, which
says of each row only that it is there, not where, and which does not count. Prints JSON.

    python benchmarks/lookup.py --rows 1000000

Every phase is a process of its own, and ``peak_mb`` is of the one that holds the index.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from hashlib import sha256
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_ray.cache.manifest import Manifest, Segment
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import DIGEST_SIZE, encode_rows, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import StoredUnits, column_digests
from distill_ray.engine.actions import ReadKeys, SendWork, StartReplica
from distill_ray.engine.keys import PartRows, read_keys
from distill_ray.engine.messages import Event, KeysRead, ReplicaReady, WorkDone, WorkRecord
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec
from distill_ray.engine.stored_rows import read_stored_rows
from distill_ray.storage import open_storage

PART_ROWS = 50_000
"""Rows in each part: at a few hundred bytes a row what the engine aims at as well."""

CORES = 2
"""Processes that work out digests."""

STEP = FunctionId("Answer", "a" * 64)
COLUMNS = ("text",)
WAYS = {"whole": "all columns", "declared": "the declared columns"}
ORDERS = ("in_order", "shuffled")


def source(way: str, order: str) -> FunctionId:
    """The step above, which gave the rows that are looked up."""
    return FunctionId("Source", sha256(f"{way} {order}".encode()).hexdigest())


def row(number: int, remark: str) -> dict[str, Any]:
    return {"number": number, "text": f"question {number}: {number:0100d}", "remark": remark}


# The root.


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    store = CacheStore(open_storage(options.root))
    numbers = list(range(options.rows))
    for stretch in stretches(numbers):
        rows = [row(number, "first") for number in stretch]
        answers = [{**each, "answer": each["text"][::-1]} for each in rows]
        index = UnitIndex(
            keys=column_digests(rows, COLUMNS),
            counts=(1,) * len(rows),
            digests=row_digests(answers),
            run="run",
            wholes=row_digests(rows),
            shapes=((("answer",), None),),
            row_shapes=((0, len(rows)),),
        )
        store.write_part(STEP, f"run-{stretch[0]:09d}", encode_rows(answers), index)
    for order in ORDERS:
        if order == "shuffled":
            random.Random(3).shuffle(numbers)
        for way in WAYS:
            write_source(store, source(way, order), numbers, "first" if way == "whole" else "second")
    return {"parts": len(store.parts(STEP))}


def stretches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + PART_ROWS] for start in range(0, len(numbers), PART_ROWS))


def write_source(store: CacheStore, function: FunctionId, numbers: Sequence[int], remark: str) -> None:
    parts = []
    for position, stretch in enumerate(stretches(numbers)):
        rows = [row(number, remark) for number in stretch]
        index = UnitIndex(bytes(DIGEST_SIZE), (len(rows),), row_digests(rows), "run")
        parts.append(store.write_part(function, f"run-{position:09d}", encode_rows(rows), index))
    rows_of_parts = [len(stretch) for stretch in stretches(numbers)]
    segments = tuple(Segment(part, 0, rows) for part, rows in enumerate(rows_of_parts))
    manifest = Manifest(function, "output", len(numbers), "content", tuple(parts), segments, {})
    store.write_manifest(manifest, replace=True)


# The look-up.


class Lookup:
    """A run of one step whose input is a complete output of an earlier run."""

    def __init__(
        self, store: CacheStore, stored: StoredUnits, above: Manifest, pool: ProcessPoolExecutor
    ) -> None:
        self._store, self._above, self._pool = store, above, pool
        spec = StepSpec("answer", ("source",), columns=COLUMNS, joins_input=True)
        self._scheduler = Scheduler([spec], {"answer": stored})
        self._reading: list[Future[KeysRead]] = []
        self.sent = 0

    def run(self) -> dict[str, int]:
        """Look up all rows; what is to be put together anew is said to be done at once."""
        state = self._scheduler.steps["answer"]
        with ThreadPoolExecutor(4) as threads:
            found = read_stored_rows(self._store, self._above, threads)
            while not (state.input_ended and state.all_emitted):
                self._feed(found)
                events = [event for action in self._scheduler.actions() for event in self._do(action)]
                if not events and self._reading:
                    done = next(as_completed(self._reading))
                    self._reading.remove(done)
                    events = [done.result()]
                for event in events:
                    self._scheduler.handle(event)
        return {"found_whole": state.counters.rows_reused - self.sent, "found_declared": self.sent}

    def _feed(self, found: Iterator[Any]) -> None:
        while self._scheduler.wants_rows("source"):
            rows = next(found, None)
            if rows is None:
                self._scheduler.feed_end("source")
            else:
                self._scheduler.feed("source", rows)

    def _do(self, action: object) -> list[Event]:
        if isinstance(action, ReadKeys):
            assert action.source is not None
            rows = PartRows(self._store, self._above.function, action.source.name, action.first_row)
            self._reading.append(self._pool.submit(read_keys, action, rows))
        if isinstance(action, StartReplica):
            assert action.joins, "a row was not found"
            return [ReplicaReady(action.step, action.replica)]
        if isinstance(action, SendWork):
            joined = len(action.work.stored)
            self.sent += joined
            counts, digests = (1,) * joined, bytes(DIGEST_SIZE * joined)
            record = WorkRecord(len(action.work.batches), counts, digests, seconds=0.01)
            return [WorkDone(action.step, action.replica, action.work.block, record)]
        return []


def look_up(options: argparse.Namespace, way: str, order: str) -> dict[str, Any]:
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        list(pool.map(column_digests, [[]] * CORES, [()] * CORES))  # they are up now
        store = CacheStore(open_storage(options.root))
        above = store.read_manifest(source(way, order), "output")
        assert above is not None
        cpu, marks, memory = time.process_time(), [time.perf_counter()], [rss_mb()]
        found = store.read_indexes(STEP, store.parts(STEP))
        marks.append(time.perf_counter())
        memory.append(rss_mb())
        stored = StoredUnits(found)
        marks.append(time.perf_counter())
        memory.append(rss_mb())
        counts = Lookup(store, stored, above, pool).run()
        marks.append(time.perf_counter())
        cpu = time.process_time() - cpu
    assert counts == {f"found_{each}": options.rows if each == way else 0 for each in WAYS}, counts
    read, built, looked_up = (round(end - start, 3) for start, end in pairwise(marks))
    return {
        "seconds": round(marks[-1] - marks[0], 3),
        "cpu_seconds": round(cpu, 3),
        "read_footers": read,
        "build_index": built,
        "look_up": looked_up,
        "index_bytes_per_unit": round((memory[2] - memory[0]) * (1 << 20) / options.rows),
        "peak_mb": peak_mb(),
    }


def arrow(options: argparse.Namespace) -> dict[str, Any]:
    """The plain alternative, on keys that are in memory already."""
    store = CacheStore(open_storage(options.root))
    indexes = [index for _, index in store.read_indexes(STEP, store.parts(STEP))]
    stored = keys_array(b"".join(index.keys for index in indexes))
    wanted = stored.take(pa.array(random.Random(3).sample(range(options.rows), options.rows)))
    started = time.perf_counter()
    found = pc.is_in(wanted, value_set=stored)
    seconds = time.perf_counter() - started
    assert pc.sum(found).as_py() == options.rows
    return {"seconds": round(seconds, 3), "peak_mb": peak_mb()}


def keys_array(keys: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(keys)]
    return pa.Array.from_buffers(pa.binary(DIGEST_SIZE), len(keys) // DIGEST_SIZE, buffers)


# Phases, each in a process of its own.


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)


def phase(options: argparse.Namespace) -> dict[str, Any]:
    if options.phase == "prepare":
        return prepare(options)
    if options.phase == "arrow":
        return arrow(options)
    return look_up(options, *options.phase.split("-"))


def run_phase(name: str, options: argparse.Namespace, root: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--phase", name, "--root", root, "--rows", str(options.rows)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"phase {name} failed:\n{done.stdout}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    medians = {
        name: {figure: statistics.median(each[name][figure] for each in rounds) for figure in rounds[0][name]}
        for name in rounds[0]
    }
    lookups = [found for name, found in medians.items() if name != "arrow"]
    return {
        "slowest_seconds": max(found["seconds"] for found in lookups),
        "largest_peak_mb": max(found["peak_mb"] for found in lookups),
        "medians": medians,
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=1, help="rounds; figures are medians")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(phase(options)))
        return
    phases = [*(f"{way}-{order}" for way in WAYS for order in ORDERS), "arrow"]
    with tempfile.TemporaryDirectory(prefix="distill_ray-lookup-") as root:
        parts = run_phase("prepare", options, root)
        rounds = [{name: run_phase(name, options, root) for name in phases} for _ in range(options.repeat)]
    record = {"rows": options.rows, **parts, "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({**record, "summary": summary(rounds), "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
