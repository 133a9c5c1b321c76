"""Runs of one pipeline at the same time compute each unit once between them, also when one of them dies."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from distill_ray.cache import paths
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput
from distill_ray.steps.base import GlobalStep
from distill_ray.storage import LocalStorage
from distill_ray.types import StepOutput

SPAWN = multiprocessing.get_context("spawn")
ROWS = 60


class Work(Step):
    """Slow work, noted down row by row."""

    log: str
    seconds: float = 0.01
    version = "1"

    @property
    def inputs(self) -> list[str]:
        return ["number"]

    @property
    def outputs(self) -> list[str]:
        return ["work"]

    def process(self, rows: StepInput) -> StepOutput:
        for row in rows:
            time.sleep(self.seconds)
            note(self.log, f"{self.name} {row['number']}")
            row["work"] = row["number"] * 2
        yield rows


class RowWork(Work):
    """The same, row by row."""

    row_wise = True


class Total(GlobalStep):
    """All rows at once."""

    log: str
    version = "1"

    @property
    def inputs(self) -> list[str]:
        return ["work"]

    def process(self, rows: StepInput) -> StepOutput:
        note(self.log, f"{self.name} all")
        yield [{"total": sum(row["work"] for row in rows)}]


def note(log: str, text: str) -> None:
    with Path(log).open("ab", buffering=0) as file:
        file.write(text.encode() + b"\n")


def pipeline(root: Path, kind: type[Work], seconds: float = 0.01) -> Pipeline:
    log = str(root.parent / "log")
    with Pipeline("shared", cache_dir=root) as made:
        load = LoadDataFromDicts(data=[{"number": number} for number in range(ROWS)], batch_size=10)
        work = kind(name="work", log=log, seconds=seconds, input_batch_size=4)
        more = kind(name="more", log=log, seconds=seconds, input_batch_size=6)
        more.input_mappings = {"number": "work"}
        more.output_mappings = {"work": "more"}
        load >> work >> more >> Total(name="total", log=log)
    return made


def run_in_process(root: Path, kind: type[Work], out: Path, seconds: float) -> None:
    made = pipeline(root, kind, seconds)
    distiset = made.run(engine="inline", progress="none")
    reported = distiset.report
    lines = [f"sum {distiset['default']['train'][0]['total']}", f"repairs {len(reported.repairs)}"]
    lines += [f"{name} {step.rows_computed}" for name, step in reported.steps.items()]
    out.write_text("\n".join(lines))


class Runs:
    """Runs of the pipeline in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "shared"
        self._folder = folder
        self.processes: list[SpawnProcess] = []

    def start(self, kind: type[Work], seconds: float = 0.01) -> SpawnProcess:
        out = self._folder / f"out-{len(self.processes)}"
        process = SPAWN.Process(target=run_in_process, args=(self.root, kind, out, seconds))
        process.start()
        self.processes.append(process)
        return process

    def wait_for_work(self, rows: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.noted()) < rows:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def noted(self) -> list[str]:
        log = self._folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def results(self) -> list[dict[str, str]]:
        """What each run that ended well came to."""
        for process in self.processes:
            process.join(90)
            assert process.exitcode is not None
        done = [number for number, process in enumerate(self.processes) if process.exitcode == 0]
        texts = [(self._folder / f"out-{number}").read_text() for number in done]
        return [dict(line.split(" ") for line in text.splitlines()) for text in texts]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    monkeypatch.setenv("DISTILL_RAY_BEAT_SECONDS", "0.2")
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.1")
    runs = Runs(tmp_path)
    yield runs
    for process in runs.processes:
        process.kill()
        process.join()


TOTAL = str(sum(number * 2 for number in range(ROWS)))


@pytest.mark.parametrize("kind", [Work, RowWork])
def test_two_runs_started_together_compute_each_unit_once_between_them(runs: Runs, kind: type[Work]) -> None:
    runs.start(kind)
    runs.start(kind)
    results = runs.results()
    assert [result["sum"] for result in results] == [TOTAL, TOTAL]
    assert [result["repairs"] for result in results] == ["0", "0"]
    assert set(Counter(runs.noted()).values()) == {1}
    assert len(runs.noted()) == 2 * ROWS + 1
    assert LocalStorage(str(runs.root)).sizes(paths.LEASES_FOLDER) == {}
