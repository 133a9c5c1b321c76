"""Runs of one pipeline at the same time compute each unit once between them, also when one of them dies."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cache import paths
from distill_ray.errors import ParameterError, StepError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput
from distill_ray.steps.base import GlobalStep
from distill_ray.storage import open_storage
from distill_ray.types import StepOutput, Unsigned
from tests.gcs_server import GcsRoot

SPAWN = multiprocessing.get_context("spawn")
ROWS = 60


class Work(Step):
    """Slow work, noted down row by row."""

    log: Unsigned[str]
    seconds: Unsigned[float]
    fail_at: Unsigned[int] = -1
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
            if row["number"] == self.fail_at:
                raise ValueError("no more")
            note(self.log, f"{self.name} {row['number']}")
            row["work"] = row["number"] * 2
        yield rows


class RowWork(Work):
    """The same, row by row."""

    row_wise = True


class MoreWork(RowWork):
    """Other work."""

    version = "2"


class Total(GlobalStep):
    """All rows at once."""

    log: Unsigned[str]
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


@dataclass(frozen=True)
class Asked:
    """What a run is to do.

    Attributes:
        root: URL of the cache root.
        log: where work is noted down.
        kind: the class of the steps that work.
        storage_options: for the root.
        seconds: that the work on a row takes.
        fail_at: the row at which a step fails.
        more: whether the pipeline has a step more.
    """

    root: str
    log: str
    kind: type[Work] = RowWork
    storage_options: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.01
    fail_at: int = -1
    more: bool = False


def pipeline(asked: Asked) -> Pipeline:
    with Pipeline("shared", cache_dir=asked.root, storage_options=asked.storage_options) as made:
        rows = [{"number": number} for number in range(ROWS)]
        load = LoadDataFromDicts(name="load", data=rows, batch_size=10)
        how = {"log": asked.log, "seconds": asked.seconds}
        work = asked.kind(name="work", fail_at=asked.fail_at, input_batch_size=4, **how)
        again = asked.kind(name="again", input_batch_size=6, **how)
        again.input_mappings = {"number": "work"}
        again.output_mappings = {"work": "again"}
        load >> work >> again >> Total(name="total", log=asked.log)
        if asked.more:
            work >> MoreWork(name="more", input_batch_size=5, log=asked.log, seconds=0)
    return made


def run_in_process(asked: Asked, out: Path) -> None:
    distiset = pipeline(asked).run(engine="inline", progress="none")
    total = distiset["total" if asked.more else "default"]["train"][0]["total"]
    out.write_text(f"{total} {len(distiset.report.repairs)}")


class Runs:
    """Runs of the pipeline in processes of their own."""

    def __init__(self, folder: Path, root: str, storage_options: dict[str, Any]) -> None:
        self._folder = folder
        self.asked = Asked(root, str(folder / "log"), storage_options=storage_options)
        self.processes: list[SpawnProcess] = []

    def start(self, **asked: Any) -> SpawnProcess:
        out = self._folder / f"out-{len(self.processes)}"
        process = SPAWN.Process(target=run_in_process, args=(replace(self.asked, **asked), out))
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

    def results(self) -> list[str]:
        """Sum and number of repairs of each run that ended well."""
        for process in self.processes:
            process.join(90)
            assert process.exitcode is not None
        done = [number for number, process in enumerate(self.processes) if process.exitcode == 0]
        return [(self._folder / f"out-{number}").read_text() for number in done]

    def leases(self) -> dict[str, int]:
        return open_storage(self.asked.root, self.asked.storage_options).sizes(paths.LEASES_FOLDER)


@pytest.fixture
def runs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    monkeypatch.setenv("DISTILL_RAY_BEAT_SECONDS", "0.25")
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.1")
    if getattr(request, "param", "local") == "gcs":
        root: GcsRoot = request.getfixturevalue("gcs_root")
        runs = Runs(tmp_path, root.url, root.storage_options)
    else:
        runs = Runs(tmp_path, str(tmp_path / "shared"), {})
    yield runs
    for process in runs.processes:
        process.kill()
        process.join()


RIGHT = f"{sum(number * 2 for number in range(ROWS))} 0"

everywhere = pytest.mark.parametrize("runs", ["local", "gcs"], indirect=True)


@pytest.mark.parametrize(
    ("runs", "kind"), [("local", Work), ("local", RowWork), ("gcs", RowWork)], indirect=["runs"]
)
def test_runs_started_together_compute_each_unit_once_between_them(runs: Runs, kind: type[Work]) -> None:
    for _ in range(3):
        runs.start(kind=kind)
    assert runs.results() == [RIGHT] * 3
    assert set(Counter(runs.noted()).values()) == {1}
    assert len(runs.noted()) == 2 * ROWS + 1
    assert runs.leases() == {}


@everywhere
def test_the_others_go_on_where_a_run_was_killed(runs: Runs) -> None:
    first = runs.start(seconds=0.02)
    runs.wait_for_work(5)
    runs.start()
    runs.start()
    runs.wait_for_work(ROWS)
    first.kill()
    assert runs.results() == [RIGHT] * 2
    repeated = sum(count - 1 for count in Counter(runs.noted()).values())
    assert repeated <= 20, "what was made in the last tenth of a second, and a batch"
    assert max(Counter(runs.noted()).values()) <= 2


def test_the_others_go_on_where_a_run_failed(runs: Runs) -> None:
    first = runs.start(seconds=0.02, fail_at=ROWS - 5)
    runs.wait_for_work(5)
    runs.start()
    assert runs.results() == [RIGHT]
    assert first.exitcode == 1
    repeated = sum(count - 1 for count in Counter(runs.noted()).values())
    assert repeated <= 3, "the batch that failed"


def test_a_run_that_waits_takes_over_rows_as_they_come(runs: Runs) -> None:
    runs.start(seconds=0.05)
    runs.wait_for_work(5)
    runs.start(more=True)
    assert runs.results() == [RIGHT] * 2
    steps = [line.split()[0] for line in runs.noted()]
    assert Counter(steps) == {"work": ROWS, "again": ROWS, "more": ROWS, "total": 1}
    assert steps.index("more") < steps.index("total"), "before the other run had ended"


@pytest.mark.usefixtures("local_ray")
def test_a_run_on_ray_waits_for_one_in_a_process_of_its_own(runs: Runs) -> None:
    runs.start(seconds=0.05)
    runs.wait_for_work(1)
    report = pipeline(replace(runs.asked, more=True)).run(engine="ray", progress="none").report
    assert runs.results() == [RIGHT]
    assert set(Counter(runs.noted()).values()) == {1}
    assert {name: step.rows_computed for name, step in report.steps.items() if step.rows_computed} == {
        "more": ROWS
    }
    assert f"pid {runs.processes[0].pid}: " in report.steps["again"].waited_for
    assert report.repairs == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_any_number_of_runs_and_kills(runs: Runs, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(dice.randint(2, 4)):
        runs.start()
    if seed % 2:
        runs.wait_for_work(dice.randint(1, 2 * ROWS))
        dice.choice(runs.processes).kill()
    results = runs.results()
    assert set(results) == {RIGHT}
    if not seed % 2:
        assert set(Counter(runs.noted()).values()) == {1}


def test_a_run_can_refuse_to_wait(runs: Runs) -> None:
    runs.start(seconds=0.05)
    runs.wait_for_work(1)
    told = r"'\w+'.*another run computes it: run \S+ on host \S+, pid \d+: "
    with pytest.raises(StepError, match=told) as refused:
        pipeline(runs.asked).run(engine="inline", progress="none", on_busy="fail")
    assert f"pid {runs.processes[0].pid}" in str(refused.value)
    assert runs.results() == [RIGHT]
    assert set(Counter(runs.noted()).values()) == {1}


def test_a_run_can_compute_what_another_one_computes(runs: Runs) -> None:
    runs.start(seconds=0.04)
    runs.wait_for_work(1)
    pipeline(runs.asked).run(engine="inline", progress="none", on_busy="compute")
    assert runs.processes[0].is_alive()
    assert runs.results() == [RIGHT]
    assert max(Counter(runs.noted()).values()) == 2


def test_what_others_do_is_no_matter_where_nothing_stored_is_used(runs: Runs) -> None:
    runs.start(seconds=0.1)
    runs.wait_for_work(1)
    pipeline(runs.asked).run(engine="inline", progress="none", use_cache=False)
    assert runs.processes[0].is_alive()


def test_on_busy_is_one_of_three(runs: Runs) -> None:
    with pytest.raises(ParameterError, match="'wait', 'compute' or 'fail'"):
        pipeline(runs.asked).run(engine="inline", on_busy="sulk")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["soon", "0", "-1", "3600", "nan"])
def test_beats_are_seconds(runs: Runs, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DISTILL_RAY_BEAT_SECONDS", given)
    with pytest.raises(ParameterError, match="DISTILL_RAY_BEAT_SECONDS must be a number of seconds"):
        pipeline(runs.asked).run(engine="inline", progress="none")
