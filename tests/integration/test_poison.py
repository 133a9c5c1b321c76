"""Rows that kill their process, or hang in it: found, told, and gone on without where the step says so."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from distill_ray.errors import StepError, TransientError
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput


class Cursed(Step):
    """Squares; something happens to its process at some rows, as long as a file is there."""

    row_wise: ClassVar[bool] = True

    how: str
    at: tuple[int, ...] = (5,)
    curse: str
    exclude_from_signature: frozenset[str] = frozenset({"how", "at", "curse"})

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["square"]

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            if row["n"] in self.at and Path(self.curse).exists():
                strike(self.how)
            yield [{**row, "square": row["n"] ** 2}]


class CursedBatches(Cursed):
    row_wise: ClassVar[bool] = False


def strike(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    elif how == "fill":
        full = []
        while True:
            full.append(b"x" * (50 << 20))
            time.sleep(0.01)
    elif how == "sleep":
        time.sleep(600)
    elif how == "hold":
        re.match(r"(a*)*b", "a" * 60)  # goes on for ever, and lets no other thread run


def cursed(kind: type[Cursed], curse: Path | str, **fields: Any) -> Pipeline:
    with Pipeline(name="cursed") as pipeline:
        load = LoadDataFromDicts(data=[{"n": n, "id": f"r{n}"} for n in range(12)])
        load >> kind(name="square", curse=str(curse), **fields)
    return pipeline


def rows_of(distiset: Any) -> list[tuple[str, Any]]:
    (only,) = distiset.values()
    return [(row["id"], row["square"]) for row in only["train"]]


def expected(*, without: tuple[int, ...] = (), null: tuple[int, ...] = ()) -> list[tuple[str, Any]]:
    return [(f"r{n}", None if n in null else n * n) for n in range(12) if n not in without]


@pytest.fixture
def curse(tmp_path: Path) -> Path:
    path = tmp_path / "curse"
    path.touch()
    return path


def check_that_the_row_is_left_out_and_tried_again(
    pipeline: Pipeline, curse: Path, engine: Engine, *words: str
) -> None:
    first = pipeline.run(engine=engine)
    assert rows_of(first) == expected(without=(5,))
    report = first.report.steps["square"]
    assert report.rows_failed == 1
    (failure,) = report.failures
    assert "input row 5" in failure
    for word in words:
        assert word in failure
    assert report.replicas_lost >= 3
    curse.unlink()
    second = pipeline.run(engine=engine)
    assert rows_of(second) == expected()
    assert second.report.steps["square"].rows_computed == 1, "nothing but the row that failed"


def test_a_row_that_kills_its_process_is_found_and_left_out(curse: Path, local_ray: None) -> None:
    pipeline = cursed(Cursed, curse, how="kill", on_error="skip", input_batch_size=2)
    check_that_the_row_is_left_out_and_tried_again(
        pipeline, curse, "ray", "processes were lost at this row", "SIGKILL"
    )


def test_a_row_at_which_process_does_not_come_back_is_found_and_left_out(curse: Path, engine: Engine) -> None:
    pipeline = cursed(Cursed, curse, how="sleep", on_error="skip", input_batch_size=1, batch_timeout=0.5)
    check_that_the_row_is_left_out_and_tried_again(
        pipeline, curse, engine, "each of them took longer than batch_timeout=0.5 s"
    )


def test_errors_that_pass_leave_no_trace_but_their_number(tmp_path: Path, engine: Engine) -> None:
    class Busy(Cursed):
        def process(self, inputs: StepInput) -> StepOutput:
            path = Path(self.curse)
            if path.exists():
                path.unlink()
                raise TransientError("the server is busy")
            yield from super().process(inputs)

    curse = tmp_path / "curse"
    curse.touch()
    distiset = cursed(Busy, curse, how="", input_batch_size=12).run(engine=engine)
    assert rows_of(distiset) == expected()
    assert distiset.report.steps["square"].rows_retried == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind", "on_error", "without", "null"),
    [
        ("segfault", Cursed, "null", (), (5,)),
        ("exit", Cursed, "null", (), (5,)),
        ("exit", CursedBatches, "skip", (4, 5, 6, 7), ()),
        ("kill", CursedBatches, "null", (), (4, 5, 6, 7)),
    ],
)
def test_whatever_ends_a_process_its_row_or_batch_follows_on_error(
    how: str,
    kind: type[Cursed],
    on_error: Literal["skip", "null"],
    without: tuple[int, ...],
    null: tuple[int, ...],
    curse: Path,
    local_ray: None,
) -> None:
    pipeline = cursed(kind, curse, how=how, on_error=on_error, input_batch_size=4)
    assert rows_of(pipeline.run()) == expected(without=without, null=null)
    curse.unlink()
    again = pipeline.run()
    assert rows_of(again) == expected()
    assert again.report.steps["square"].rows_computed == len(without) + len(null)


@pytest.mark.slow
def test_a_row_that_kills_ends_the_run_by_default_and_is_named(curse: Path, local_ray: None) -> None:
    pipeline = cursed(Cursed, curse, how="kill", input_batch_size=4)
    with pytest.raises(
        StepError, match=r"'square', input row 5: \d processes were lost at this row.*SIGKILL"
    ):
        pipeline.run()
    curse.unlink()
    assert rows_of(pipeline.run()) == expected()


@pytest.mark.slow
def test_where_every_row_kills_the_run_ends_whatever_on_error_says(curse: Path, local_ray: None) -> None:
    pipeline = cursed(Cursed, curse, how="kill", at=tuple(range(12)), on_error="skip", input_batch_size=1)
    with pytest.raises(StepError, match="nothing was done in between"):
        pipeline.run()


FULL = """\
import os
import sys

import psutil

memory = psutil.virtual_memory()
os.environ["RAY_memory_usage_threshold"] = str(1 - memory.available / memory.total + 3e9 / memory.total)
os.environ["RAY_memory_monitor_refresh_ms"] = "100"

from distill_ray.errors import StepError
from tests.integration.test_poison import Cursed, cursed

pipeline = cursed(Cursed, sys.argv[1], how="fill", on_error="skip", input_batch_size=2)
try:
    pipeline.run()
except StepError as error:
    print(str(error))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_row_that_fills_the_memory_ends_the_run_which_says_so(curse: Path) -> None:
    command = [sys.executable, "-c", FULL, str(curse)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=540, check=True)
    found = r"Step 'square', input row \d+: 5 processes were lost at this row: each of them was ended by Ray "
    assert re.search(found + r"since memory was full \(.*GB by itself\)", ended.stdout), ended.stdout
    assert "StepResources(memory=...)" in ended.stdout


@pytest.mark.slow
def test_a_row_that_holds_the_interpreter_is_found_too(curse: Path, local_ray: None) -> None:
    pipeline = cursed(Cursed, curse, how="hold", on_error="skip", input_batch_size=1, batch_timeout=1)
    check_that_the_row_is_left_out_and_tried_again(pipeline, curse, "ray", "batch_timeout=1 s")
