"""What hashing and caching cost where a step takes 50 ms a row.

One row-wise step over rows with a text of 2 KB, which sleeps for each row as long as a model would take, and
adds a text of 2 KB. Measured inline and on Ray with one and with two replicas, at batch sizes 1 and 50,
against the same step in a bare loop in the same process: ``process`` over the same batches and nothing else.
Prints JSON.

    python benchmarks/overhead.py --rows 400 --repeat 3

``overhead`` is a row's time in the run over its time in the bare loop, less 1. Of each replica counts what
comes from its second call on, so that starting is left out (the first rows that a process hands to Ray take
0.2 s). ``ending_seconds`` is what comes after the last row, however many there were: the last part and the
manifest are written, the replicas end, the run is recorded.

On a machine that is busy with other things this says little: a loop that sleeps is served at once, a call
between processes is not. What processes computed says more: ``replica_cpu_ms_a_row`` (1.5 ms would be 3 %)
and ``driver_cpu_ms_a_row``, the run's own process, start-up included; inline they are the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput, StepResources

SECONDS_A_ROW = 0.05
TEXT = 2_048
BATCHES = (1, 50)
ENGINES = (("inline", 1), ("ray", 1), ("ray", 2))


class Answer(Step):
    """Takes its time for each row, and notes for each call when it began and ended."""

    row_wise = True
    notes: str
    exclude_from_signature: frozenset[str] = frozenset({"notes"})

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["answer"]

    def process(self, inputs: StepInput) -> StepOutput:
        began = time.time()
        for row in inputs:
            time.sleep(SECONDS_A_ROW)
            row["answer"] = row["text"][::-1]
        with Path(self.notes, str(os.getpid())).open("a", encoding="utf-8") as file:
            file.write(f"{began} {time.time()} {time.process_time()} {len(inputs)}\n")
        yield inputs


def data(rows: int) -> list[dict[str, Any]]:
    return [{"number": number, "text": f"{number} ".ljust(TEXT, "x")} for number in range(rows)]


def make_step(batch_size: int, replicas: int, notes: Path) -> Answer:
    notes.mkdir()
    resources = StepResources(replicas=replicas, cpus=0.5)
    return Answer(name="answer", input_batch_size=batch_size, resources=resources, notes=str(notes))


@dataclass(frozen=True)
class Span:
    """What a process did from the beginning of its second call on."""

    rows: int
    seconds: float
    cpu_seconds: float
    ended: float


def spans(notes: Path) -> list[Span]:
    found = []
    for file in notes.iterdir():
        lines = file.read_text(encoding="utf-8").splitlines()
        _, *calls = [[float(word) for word in line.split()] for line in lines]
        (began, _, cpu, _), (_, ended, cpu_at_end, _) = calls[0], calls[-1]
        found.append(Span(int(sum(call[3] for call in calls)), ended - began, cpu_at_end - cpu, ended))
    return found


# Phases, each in a process of its own.


def bare(rows: int, batch_size: int, notes: Path) -> float:
    """The seconds of ``process`` alone, for each row."""
    step, given = make_step(batch_size, 1, notes), data(rows)
    for start in range(0, rows, batch_size):
        for _ in step.process(given[start : start + batch_size]):
            pass
    (span,) = spans(notes)
    return span.seconds / span.rows


def phase(options: argparse.Namespace) -> dict[str, Any]:
    engine, replicas, batch_size = options.phase.split("-")
    folder = Path(options.root)
    if engine == "ray":
        import ray

        # As the bare loop: Ray's processes give way to others otherwise.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it
        ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)
    alone = bare(options.rows, int(batch_size), folder / "bare")
    with Pipeline(name="overhead", cache_dir=str(folder / "cache")) as pipeline:
        load = LoadDataFromDicts(name="load", data=data(options.rows))
        load >> make_step(int(batch_size), int(replicas), folder / "run")
    cpu = own_cpu_seconds()
    pipeline.run(engine=engine, progress="none")
    ended = time.time()
    found = spans(folder / "run")
    rows = sum(span.rows for span in found)
    seconds = sum(span.seconds for span in found) / rows
    ending = ended - max(span.ended for span in found)
    return {
        "bare_ms_a_row": round(1000 * alone, 3),
        "run_ms_a_row": round(1000 * seconds, 3),
        "overhead": round(seconds / alone - 1, 4),
        "replica_cpu_ms_a_row": round(1000 * sum(span.cpu_seconds for span in found) / rows, 3),
        "driver_cpu_ms_a_row": round(1000 * (own_cpu_seconds() - cpu) / options.rows, 3),
        "ending_seconds": round(ending, 3),
    }


def own_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run_phase(name: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="distill_ray-overhead-") as root:
        command = [sys.executable, __file__, "--phase", name, "--root", root, "--rows", str(options.rows)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"phase {name} failed:\n{done.stdout}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {figure: statistics.median(each[name][figure] for each in rounds) for figure in found}
        for name, found in rounds[0].items()
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=1, help="rounds; figures are medians")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(phase(options)))
        return
    phases = [f"{engine}-{replicas}-{size}" for engine, replicas in ENGINES for size in BATCHES]
    rounds = [{name: run_phase(name, options) for name in phases} for _ in range(options.repeat)]
    record = {"rows": options.rows, "seconds_a_row": SECONDS_A_ROW, "cpus": os.cpu_count()}
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({**record, "load": load, "summary": summary(rounds), "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
