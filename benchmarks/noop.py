"""What the engine costs where the steps themselves cost next to nothing.

Three steps: a generator of N rows, one that adds a small column, one that adds a column of 1 KB; each a plain
``process`` over lists of dicts. Measured beside it, in the same run and on the same machine: a bare loop of
three Ray actors that do the same work and write the same Parquet, once with a call for each batch and once
with 20 batches in a call. Prints JSON.

    python benchmarks/noop.py --rows 100000 --batch-size 50

With ``--row-wise`` also ``cold`` and ``partial`` of a pipeline whose last two steps are row-wise: each row is
a unit of its own, handed without the columns that the step does not read, which are joined on again.

Every phase is a process of its own. ``seconds`` of ``cold``, ``partial`` and the bare loops begin when Ray is
up (actors are not) and end when the last row is on disk; ``hit`` is the wall time of the whole process, the
interpreter's start and the opening of the leaf included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_ray.pipeline import Pipeline
from distill_ray.steps import GeneratorStep, GeneratorStepOutput, Step, StepInput, StepOutput, StepResources

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 24 << 20
"""Bytes in memory that make a part of about 12 MB on disk: what the engine aims at as well."""

IN_FLIGHT = 4
"""Calls under way in each bare actor; measured to be the best of 1, 2, 4 and 16."""


def first_columns(number: int) -> dict[str, Any]:
    return {"number": number, "text": f"row number {number}"}


def small_column(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "length": len(row["text"])}


def large_column(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "payload": hashlib.shake_256(row["text"].encode()).hexdigest(512)}


class Numbers(GeneratorStep):
    """Rows of a number and a short text."""

    rows: int

    @property
    def outputs(self) -> list[str]:
        return ["number", "text"]

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, self.rows, self.batch_size):
            end = min(self.rows, start + self.batch_size)
            yield [first_columns(number) for number in range(start, end)], end == self.rows


class AddSmall(Step):
    """Adds a number."""

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["length"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [small_column(row) for row in inputs]


class AddLarge(Step):
    """Adds a text of 1 KB."""

    tag: str = "first"

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["payload"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [large_column(row) for row in inputs]


class AddSmallEach(AddSmall):
    """The same, row by row."""

    row_wise = True


class AddLargeEach(AddLarge):
    """The same, row by row."""

    row_wise = True


def make_pipeline(
    rows: int, batch_size: int, cache: str, tag: str = "first", *, row_wise: bool = False
) -> Pipeline:
    small_kind, large_kind = (AddSmallEach, AddLargeEach) if row_wise else (AddSmall, AddLarge)
    one = StepResources(replicas=1, cpus=0.1)
    with Pipeline(name="noop", cache_dir=cache) as pipeline:
        numbers = Numbers(name="numbers", rows=rows, batch_size=batch_size, resources=one)
        small = small_kind(name="small", input_batch_size=batch_size, resources=one)
        large = large_kind(name="large", input_batch_size=batch_size, resources=one, tag=tag)
        numbers >> small >> large
    return pipeline


# The bare loop: the same work, without signatures, digests, order, resume or records.


class BareActor:
    """Applies a function to rows, gathers tables and writes them as Parquet."""

    def __init__(self, work: Callable[[dict[str, Any]], dict[str, Any]] | None, folder: str) -> None:
        self._work = work
        self._folder = Path(folder)
        self._gathered: list[pa.Table] = []
        self._nbytes = 0
        self._parts = 0

    def ready(self) -> bool:
        return True

    def generate(self, start: int, end: int) -> tuple[pa.Table, bool]:
        return self._keep([first_columns(number) for number in range(start, end)])

    def apply(self, table: pa.Table, batch_size: int) -> tuple[pa.Table, bool]:
        assert self._work is not None
        rows = table.to_pylist()
        made: list[dict[str, Any]] = []
        for start in range(0, len(rows), batch_size):
            made.extend([self._work(row) for row in rows[start : start + batch_size]])
        return self._keep(made)

    def flush(self) -> bool:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._gathered:
            with (self._folder / f"{self._parts:05d}.parquet").open("wb") as file:
                pq.write_table(
                    pa.concat_tables(self._gathered),
                    file,
                    compression="zstd",
                    compression_level=3,
                    use_dictionary=False,
                    write_statistics=False,
                )
                file.flush()
                os.fsync(file.fileno())
            self._parts += 1
            self._gathered, self._nbytes = [], 0
        return True

    def _keep(self, rows: list[dict[str, Any]]) -> tuple[pa.Table, bool]:
        import pyarrow as pa

        table = pa.Table.from_pylist(rows)
        self._gathered.append(table)
        self._nbytes += table.nbytes
        if self._nbytes >= PART_BYTES:
            self.flush()
        return table, True


def run_bare(rows: int, batch_size: int, batches_a_call: int, root: str) -> None:
    import ray

    actor: Any = ray.remote(BareActor).options(num_cpus=0.1)
    folders = [Path(root, name) for name in ("numbers", "small", "large")]
    for folder in folders:
        folder.mkdir(parents=True)
    works = (None, small_column, large_column)
    numbers, small, large = (actor.remote(work, str(f)) for work, f in zip(works, folders, strict=True))
    in_flight: deque[Any] = deque()
    step = batch_size * batches_a_call
    for start in range(0, rows, step):
        table, _ = numbers.generate.options(num_returns=2).remote(start, min(rows, start + step))
        table, _ = small.apply.options(num_returns=2).remote(table, batch_size)
        table, done = large.apply.options(num_returns=2).remote(table, batch_size)
        in_flight.append(done)
        if len(in_flight) > IN_FLIGHT:
            ray.get(in_flight.popleft())
    ray.get(list(in_flight))
    ray.get([each.flush.remote() for each in (numbers, small, large)])


# Phases, each in a process of its own.


def start_ray() -> None:
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)


def own_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def phase(options: argparse.Namespace) -> dict[str, Any]:
    if options.phase == "hit":
        distiset = make_pipeline(options.rows, options.batch_size, options.root).run(progress="none")
        train = distiset["default"]["train"]
        assert len(train) == options.rows
        assert "ray" not in sys.modules
        first = next(iter(train))
        return {"rows": len(train), "first": first["number"], "driver_peak_mb": peak_mb()}
    start_ray()
    before, started = own_cpu_seconds(), time.perf_counter()
    found: dict[str, Any] = {}
    if options.phase.startswith("bare"):
        run_bare(options.rows, options.batch_size, int(options.phase.removeprefix("bare")), options.root)
    else:
        change, _, kind = options.phase.partition("-")
        tag = "first" if change == "cold" else "second"
        pipeline = make_pipeline(
            options.rows, options.batch_size, options.root, tag, row_wise=kind == "row_wise"
        )
        distiset = pipeline.run(progress="none")
        assert len(distiset["default"]["train"]) == options.rows
        found["steps"] = {name: step.decision for name, step in distiset.report.steps.items()}
    seconds = time.perf_counter() - started
    batches = 3 * -(-options.rows // options.batch_size)
    return {
        **found,
        "seconds": round(seconds, 3),
        "rows_per_second": round(options.rows / seconds),
        "driver_cpu_ms_per_batch": round(1000 * (own_cpu_seconds() - before) / batches, 4),
        "driver_peak_mb": peak_mb(),
    }


def run_phase(name: str, options: argparse.Namespace, root: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--phase", name, "--root", str(root)]
    command += ["--rows", str(options.rows), "--batch-size", str(options.batch_size)]
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"phase {name} failed:\n{done.stdout}\n{done.stderr}")
    process_seconds = round(time.perf_counter() - started, 3)
    return {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": process_seconds}


def objects(root: Path) -> dict[str, int]:
    files = [file for file in root.rglob("*") if file.is_file()]
    parts = [file for file in files if file.suffix == ".parquet"]
    return {"objects": len(files), "parts": len(parts), "bytes": sum(file.stat().st_size for file in files)}


def rounds(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The phases, interleaved, so that a slow minute of the machine hits all of them."""
    for number in range(options.repeat):
        cache, bare = folder / f"cache-{number}", folder / f"bare-{number}"
        found = {
            "bare_1": run_phase("bare1", options, bare / "1"),
            "cold": run_phase("cold", options, cache),
            "bare_20": run_phase("bare20", options, bare / "20"),
        }
        found["cold"] |= objects(cache)
        found["hit"] = run_phase("hit", options, cache)
        found["partial"] = run_phase("partial", options, cache)
        if options.row_wise:
            by_row = folder / f"cache-row-wise-{number}"
            found["cold_row_wise"] = run_phase("cold-row_wise", options, by_row) | objects(by_row)
            found["partial_row_wise"] = run_phase("partial-row_wise", options, by_row)
        yield found


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def median(phase: str, figure: str = "seconds") -> float:
        return float(statistics.median(each[phase][figure] for each in found))

    better = min(median("bare_1"), median("bare_20"))
    by_row = {
        f"{phase}_row_wise_over_{phase}": round(median(f"{phase}_row_wise") / median(phase), 3)
        for phase in ("cold", "partial")
        if f"{phase}_row_wise" in found[0]
    }
    return {
        **by_row,
        "cold_over_bare_call_per_batch": round(median("cold") / median("bare_1"), 3),
        "cold_over_bare_20_batches_a_call": round(median("cold") / median("bare_20"), 3),
        "cold_over_better_bare": round(median("cold") / better, 3),
        "partial_over_cold": round(median("partial") / median("cold"), 3),
        "complete_hit_process_seconds": median("hit", "process_seconds"),
        "driver_peak_mb": max(each["cold"]["driver_peak_mb"] for each in found),
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=1, help="rounds; ratios are of the medians")
    parser.add_argument("--row-wise", action="store_true", help="measure row-wise steps, too")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(phase(options)))
        return
    with tempfile.TemporaryDirectory(prefix="distill_ray-noop-") as folder:
        found = list(rounds(options, Path(folder)))
    record = {"rows": options.rows, "batch_size": options.batch_size, "cpus": os.cpu_count()}
    record["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps({**record, "summary": summary(found), "rounds": found}, indent=1))


if __name__ == "__main__":
    main()
