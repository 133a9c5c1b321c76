"""What it takes to plan a pipeline of 200 steps whose outputs are all stored.

Two shapes of the same size: a chain, and branches of ten steps each that start from one loader. Half of the
steps are row-wise, each has code of its own class and a parameter of its own, and the first run of each
shape fills a local root. Then, each in a process of its own, the plan for the same pipeline, for one in which
a step in the middle has another parameter, for one whose loader gives other rows (all that is stored of the
other steps may be found again, unit by unit), and for one in which every step is another. Prints JSON.

    python benchmarks/planning.py --steps 200

``seconds`` and ``cpu_seconds`` are those of ``Pipeline.plan()``; ``declare`` is how long it took to declare
the pipeline, and ``process`` is the whole process, the interpreter's start and all imports included. Beside
it, in the same run: ``look``, a loop that only reads what the root holds of each step, its manifest and a
listing of its parts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from distill_ray.steps.base import BaseStep

BRANCH = 10
"""Steps in each branch."""

SHAPES = ("chain", "branches")
CASES = ("same", "middle", "source", "all")
SUFFIX = "!"


def tagged(text: str, tag: str) -> str:
    return f"{text}{tag}{SUFFIX}"[-40:]


class Tag(Step):
    """Writes a tag behind a text."""

    tag: str

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["text"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "text": tagged(row["text"], self.tag)} for row in inputs]


class TagEach(Tag):
    """The same, row by row."""

    row_wise = True


def make_pipeline(shape: str, case: str, steps: int, rows: int, cache: str) -> Pipeline:
    texts = [f"{'another' if case == 'source' else 'row'} {number}" for number in range(rows)]
    with Pipeline(name=f"planning-{shape}", cache_dir=cache) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"text": text} for text in texts])
        above: BaseStep = load
        for number in range(1, steps):
            changed = case == "all" or (case == "middle" and number == steps // 2)
            kind = TagEach if number % 2 else Tag
            step = kind(name=f"step-{number:03d}", tag=f"{number}{'changed' if changed else ''}")
            above = load if shape == "branches" and number % BRANCH == 1 else above
            above >> step
            above = step
    return pipeline


# Phases, each in a process of its own.


def phase(options: argparse.Namespace) -> dict[str, Any]:
    shape, case = options.phase.split("-")
    started = time.perf_counter()
    pipeline = make_pipeline(shape, "same" if case in ("fill", "look") else case, **sizes(options))
    declared, cpu = time.perf_counter(), time.process_time()
    if case == "fill":
        pipeline.run(engine="inline", progress="none")
    elif case == "look":
        return look(pipeline)
    else:
        decisions = Counter(step.decision for step in pipeline.plan().steps)
        planned = time.perf_counter()
        return {
            "seconds": round(planned - declared, 3),
            "declare": round(declared - started, 3),
            "cpu_seconds": round(time.process_time() - cpu, 3),
            "decisions": dict(decisions),
        }
    return {}


def look(pipeline: Pipeline) -> dict[str, Any]:
    from distill_ray.cache.store import CacheStore
    from distill_ray.storage import open_storage

    store = CacheStore(open_storage(str(pipeline.cache_dir)))
    plan = pipeline.plan()
    started = time.perf_counter()
    for step in plan.steps:
        manifest = store.read_manifest(step.function, step.output_key)
        assert manifest is not None
        assert not store.missing_parts(manifest)
    return {"seconds": round(time.perf_counter() - started, 3)}


def sizes(options: argparse.Namespace) -> dict[str, Any]:
    return {"steps": options.steps, "rows": options.rows, "cache": options.root}


def run_phase(name: str, options: argparse.Namespace, root: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--phase", name, "--root", root]
    command += ["--steps", str(options.steps), "--rows", str(options.rows)]
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"phase {name} failed:\n{done.stdout}\n{done.stderr}")
    process = round(time.perf_counter() - started, 3)
    return {**json.loads(done.stdout.splitlines()[-1]), "process": process}


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    figures = ("seconds", "declare", "cpu_seconds", "process")
    return {
        name: {
            figure: statistics.median(each[name][figure] for each in rounds)
            for figure in figures
            if figure in found
        }
        for name, found in rounds[0].items()
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; figures are medians")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(phase(options)))
        return
    phases = [f"{shape}-{case}" for shape in SHAPES for case in (*CASES, "look")]
    with tempfile.TemporaryDirectory(prefix="distill_ray-planning-") as folder:
        roots = {shape: str(Path(folder, shape)) for shape in SHAPES}
        for shape in SHAPES:
            run_phase(f"{shape}-fill", options, roots[shape])
        rounds = [
            {name: run_phase(name, options, roots[name.split("-")[0]]) for name in phases}
            for _ in range(options.repeat)
        ]
    record = {"steps": options.steps, "rows": options.rows, "cpus": os.cpu_count()}
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({**record, "load": load, "summary": summary(rounds), "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
