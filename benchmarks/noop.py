"""What the engine costs where the steps themselves cost next to nothing.

Three steps: a generator of N rows, one that adds a small column, one that adds a column of 1 KB; each a plain
``process`` over lists of dicts. Measured beside it, in the same run and on the same machine: a bare loop of
three Ray actors that do the same work and write the same Parquet, once with a call for each batch and once
with 20 batches in a call (`bare_loop.py`); with ``--ray-data`` also Ray Data (`ray_data.py`), for the first
batch size. Prints JSON; ratios are of the best of ``--repeat`` rounds.

    python benchmarks/noop.py --rows 100000 --batch-sizes 50 500 5000 --repeat 3 --ray-data

With ``--row-wise`` also ``cold`` and ``partial`` of a pipeline whose last two steps are row-wise: each row is
a unit of its own, handed without the columns that the step does not read, which are joined on again.

Every phase is a process of its own. ``seconds`` of ``cold``, ``partial``, the bare loops and Ray Data
begin when Ray is up (actors are not) and end when the last row is on disk; ``cpu_seconds`` are those of
all processes meanwhile, of the driver, the actors and Ray: on a busy machine they say more. Of ``hit``, a
complete hit all of whose rows are read into one Arrow table, and of ``read``, pyarrow reading the same
Parquet files into one, ``process_seconds`` are those of the whole process, the interpreter's start and
all imports included, ``process_cpu_seconds`` its CPU seconds, and ``seconds`` what it takes once more in the
same process, when all is imported; each the best of five, for they take a fraction of a second.

What is compared does the same where it can: the same rows, zstd level, size of parts, ``fsync`` and two
results a call; the engine alone computes digests, writes page checksums and keeps order. Python's bytecode of
the engine is written beforehand, as it is where a package is installed (libraries have theirs). Where pandas
is installed, pyarrow imports it for the bare loop's ``from_pylist`` and for ``read_table``: 0.2 s of CPU a
process, which the engine does without. Without pandas the bare loop and ``read`` do that much better.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.bare_loop import STAGES, first_columns, large_column, run_bare, small_column
from distill_ray.pipeline import Pipeline
from distill_ray.steps import GeneratorStep, GeneratorStepOutput, Step, StepInput, StepOutput, StepResources

HERE = Path(__file__).resolve().parent

FEW = 5
"""Times that short phases are measured."""


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


# Phases, each in a process of its own.

READ = """
import sys
import pyarrow as pa
import pyarrow.parquet as pq
table = pa.concat_tables([pq.read_table(file) for file in sys.argv[1:]])
print(table.num_rows)
"""


def start_ray() -> None:
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)


def own_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class CpuTime:
    """CPU seconds of this process and of all below it, those that have ended in the meantime included."""

    def __init__(self) -> None:
        import psutil  # not beforehand: a hit does not need it

        self._own, self._gone = psutil.Process(), psutil.Error
        self._seconds: dict[int, float] = {}
        self._look()
        self._before = sum(self._seconds.values())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def taken(self) -> float:
        self._over.set()
        self._thread.join()
        self._look()
        return round(sum(self._seconds.values()) - self._before, 3)

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self._look()

    def _look(self) -> None:
        for process in (self._own, *self._own.children(recursive=True)):
            with suppress(self._gone):
                times = process.cpu_times()
                self._seconds[process.pid] = times.user + times.system


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def run_hit(options: argparse.Namespace) -> dict[str, Any]:
    """A complete hit, and, where wanted, the same again and again."""

    def hit() -> None:
        distiset = make_pipeline(options.rows, options.batch_size, options.root).run(progress="none")
        assert distiset["default"]["train"].to_arrow().num_rows == options.rows

    seconds = best_seconds(hit, FEW if options.again else 0)
    assert "ray" not in sys.modules
    return {"seconds": seconds, "driver_peak_mb": peak_mb()}


def best_seconds(work: Callable[[], None], more: int) -> float:
    """Do something once, and then so many times more: how long it took the best time after the first."""
    taken = []
    for _ in range(1 + more):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return round(min(taken[1:] or taken), 3)


def read_again(options: argparse.Namespace) -> dict[str, Any]:
    """Read the leaf's files with pyarrow, all imports done and the files read once before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read() -> None:
        assert pa.concat_tables(map(pq.read_table, leaf_files(Path(options.root)))).num_rows == options.rows

    return {"seconds": best_seconds(read, FEW)}


def run_ray_data(kind: str, options: argparse.Namespace) -> None:
    from benchmarks import ray_data

    stages: dict[str, ray_data.Work] = {"numbers": lambda row: first_columns(row["id"]), **STAGES}
    run = ray_data.run_by_batches if kind == "batches" else ray_data.run_with_own_blocks
    assert run(options.rows, options.batch_size, stages, options.root) == options.rows


def run_cold(options: argparse.Namespace) -> dict[str, Any]:
    """A run that computes all three steps, or, of the pipeline with another tag, the last one."""
    change, _, kind = options.phase.partition("-")
    tag = "first" if change == "cold" else "second"
    pipeline = make_pipeline(options.rows, options.batch_size, options.root, tag, row_wise=kind == "row_wise")
    distiset = pipeline.run(progress="none")
    assert len(distiset["default"]["train"]) == options.rows
    return {"steps": {name: step.decision for name, step in distiset.report.steps.items()}}


def phase(options: argparse.Namespace) -> dict[str, Any]:
    if options.phase == "hit":
        return run_hit(options)
    if options.phase == "read":
        return read_again(options)
    start_ray()
    of_all = CpuTime()
    before, started = own_cpu_seconds(), time.perf_counter()
    found: dict[str, Any] = {}
    if options.phase.startswith("bare"):
        run_bare(options.rows, options.batch_size, int(options.phase.removeprefix("bare")), options.root)
    elif options.phase.startswith("ray_data-"):
        run_ray_data(options.phase.removeprefix("ray_data-"), options)
    else:
        found = run_cold(options)
    seconds = time.perf_counter() - started
    batches = 3 * -(-options.rows // options.batch_size)
    return {
        **found,
        "seconds": round(seconds, 3),
        "cpu_seconds": of_all.taken(),
        "rows_per_second": round(options.rows / seconds),
        "driver_cpu_ms_per_batch": round(1000 * (own_cpu_seconds() - before) / batches, 4),
        "driver_peak_mb": peak_mb(),
    }


def timed(*command: str) -> tuple[str, dict[str, float]]:
    """The last line that a process prints, its seconds, and its CPU seconds."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}\n{done.stderr}")
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return done.stdout.splitlines()[-1], {
        "process_seconds": round(seconds, 3),
        "process_cpu_seconds": round(cpu, 3),
    }


def run_phase(name: str, options: argparse.Namespace, root: Path, *more: str) -> dict[str, Any]:
    sizes = ("--rows", str(options.rows), "--batch-sizes", str(options.batch_size))
    found, taken = timed(__file__, "--phase", name, "--root", str(root), *sizes, *more)
    return {**json.loads(found), **taken}


def run_hit_and_read(options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Both as whole processes, and once more in processes that have done it before."""
    hits = [run_phase("hit", options, cache) for _ in range(FEW)]
    reads = [timed("-c", READ, *leaf_files(cache))[1] for _ in range(FEW)]
    figures = ("process_seconds", "process_cpu_seconds")
    hit = hits[0] | {figure: min(each[figure] for each in hits) for figure in figures}
    read: dict[str, Any] = {figure: min(each[figure] for each in reads) for figure in figures}
    hit["seconds"] = run_phase("hit", options, cache, "--again")["seconds"]
    read["seconds"] = run_phase("read", options, cache)["seconds"]
    return {"hit": hit, "read": read}


def leaf_files(cache: Path) -> list[str]:
    return sorted(map(str, cache.glob("steps/AddLarge-*/parts/*.parquet")))


def objects(root: Path) -> dict[str, int]:
    files = [file for file in root.rglob("*") if file.is_file()]
    parts = [file for file in files if file.suffix == ".parquet"]
    return {"objects": len(files), "parts": len(parts), "bytes": sum(file.stat().st_size for file in files)}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All phases once, those that are compared one after the other."""
    cache, bare = folder / "cache", folder / "bare"
    found = {
        "bare_1": run_phase("bare1", options, bare / "1"),
        "cold": run_phase("cold", options, cache),
        "bare_20": run_phase("bare20", options, bare / "20"),
    }
    found["cold"] |= objects(cache)
    if options.ray_data:
        for kind in ("own_blocks", "batches"):
            found[f"ray_data_{kind}"] = run_phase(f"ray_data-{kind}", options, folder / kind)
    found |= run_hit_and_read(options, cache)
    found["partial"] = run_phase("partial", options, cache)
    if options.row_wise:
        by_row = folder / "cache-row-wise"
        found["cold_row_wise"] = run_phase("cold-row_wise", options, by_row) | objects(by_row)
        found["partial_row_wise"] = run_phase("partial-row_wise", options, by_row)
    return found


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def best(phase: str, figure: str = "seconds") -> float:
        return float(min(each[phase][figure] for each in found))

    def ratio(phase: str, other: str, figure: str = "seconds") -> float:
        return round(best(phase, figure) / best(other, figure), 3)

    better = min(("bare_1", "bare_20"), key=best)
    thrifty = min(("bare_1", "bare_20"), key=lambda phase: best(phase, "cpu_seconds"))
    ratios = {
        "cold_over_bare_call_per_batch": ratio("cold", "bare_1"),
        "cold_over_bare_20_batches_a_call": ratio("cold", "bare_20"),
        "cold_over_better_bare": ratio("cold", better),
        "cold_over_better_bare_cpu": ratio("cold", thrifty, "cpu_seconds"),
        "partial_over_cold": ratio("partial", "cold"),
        "hit_over_pyarrow_processes": ratio("hit", "read", "process_seconds"),
        "hit_over_pyarrow_processes_cpu": ratio("hit", "read", "process_cpu_seconds"),
        "hit_over_pyarrow_when_imported": ratio("hit", "read"),
    }
    for kind in ("ray_data_batches", "ray_data_own_blocks"):
        if kind in found[0]:
            ratios[f"times_the_rows_per_second_of_{kind}"] = ratio(kind, "cold")
            ratios[f"times_the_rows_per_cpu_second_of_{kind}"] = ratio(kind, "cold", "cpu_seconds")
    for change in ("cold", "partial"):
        if f"{change}_row_wise" in found[0]:
            ratios[f"{change}_row_wise_over_{change}"] = ratio(f"{change}_row_wise", change)
    peak = max(each["cold"]["driver_peak_mb"] for each in found)
    return {
        **ratios,
        "cold_rows_per_second": max(e["cold"]["rows_per_second"] for e in found),
        "driver_peak_mb": peak,
    }


def rounds(options: argparse.Namespace, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The phases of all batch sizes in turn, so that a slow minute of the machine hits all of them."""
    for _ in range(options.repeat):
        for place, size in enumerate(options.batch_sizes):
            compared = options.ray_data and place == 0
            of_size = argparse.Namespace(**{**vars(options), "batch_size": size, "ray_data": compared})
            with tempfile.TemporaryDirectory(dir=folder) as root:
                yield size, measure(of_size, Path(root))


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[50])
    parser.add_argument("--repeat", type=int, default=1, help="rounds; ratios are of the best")
    parser.add_argument("--row-wise", action="store_true", help="measure row-wise steps, too")
    parser.add_argument(
        "--ray-data", action="store_true", help="measure Ray Data, too, at the first batch size"
    )
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batch_size = options.batch_sizes[0]
    if options.phase:
        print(json.dumps(phase(options)))
        return
    for code in (HERE, HERE.parent / "distill_ray"):
        compileall.compile_dir(code, quiet=1)
    found: dict[int, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="distill_ray-noop-") as folder:
        for size, round_of_size in rounds(options, Path(folder)):
            found.setdefault(size, []).append(round_of_size)
    record = {"rows": options.rows, "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    by_size = {size: {"summary": summary(each), "rounds": each} for size, each in found.items()}
    print(json.dumps({**record, "batch_sizes": by_size}, indent=1))


if __name__ == "__main__":
    main()
