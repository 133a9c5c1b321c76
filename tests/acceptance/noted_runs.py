"""Runs of `noted_work.py` in processes of their own, on one cache root, that may be killed (`kill -9`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from tests.acceptance.noted_work import EVERYTHING, Work, expected_rows, read_work

SCRIPT = Path(__file__).with_name("noted_work.py")

PARTS = {"Count": "count", "Square": "square", "Group": "group", "Answers": "llm", "Rank": "rank"}
"""What each class's parts hold the outcome of."""


@dataclass(frozen=True)
class Death:
    """A kill.

    Attributes:
        at: when it was, in seconds of the wall clock.
        run: the run that was killed.
        stored: the work whose outcome stood in some part.
    """

    at: float
    run: str
    stored: frozenset[tuple[str, int]]


def kill_one(process: subprocess.Popen[str]) -> None:
    """The process that the run was started as, and no other."""
    process.send_signal(signal.SIGKILL)


def kill_everything(process: subprocess.Popen[str]) -> None:
    """The driver, the actors and Ray at once, as when a machine loses power."""
    driver = psutil.Process(process.pid)
    for each in [*driver.children(recursive=True), driver]:
        each.kill()


@dataclass
class Site:
    """A cache root, the runs on it, and what these did.

    Attributes:
        folder: where root, log and output are.
        engine: what the runs use.
        seconds: what a row costs in a step.
        environment: what the runs' environment has besides this process's.
    """

    folder: Path
    engine: str = "inline"
    seconds: float = 0.005
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: list[subprocess.Popen[str]] = field(default_factory=list, init=False)
    deaths: list[Death] = field(default_factory=list, init=False)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one more run."""
        self.folder.mkdir(exist_ok=True)
        name = f"r{len(self.runs)}"
        settings = {
            "--root": self.folder / "root",
            "--log": self.folder / "work.log",
            "--run": name,
            "--engine": self.engine,
            "--seconds": self.seconds,
        }
        command = [str(each) for setting in settings.items() for each in setting]
        with (self.folder / f"{name}.out").open("w") as out, (self.folder / f"{name}.err").open("w") as err:
            run = subprocess.Popen(
                [sys.executable, str(SCRIPT), *command, *arguments],
                stdout=out,
                stderr=err,
                text=True,
                env={**os.environ, **self.environment},
            )
        self.runs.append(run)
        return run

    def work(self) -> list[Work]:
        """What all runs have done so far."""
        return read_work(self.folder / "work.log")

    def wait_for_work_of(self, run: subprocess.Popen[str], pieces: int = 1) -> bool:
        """Wait until a run has done something; False: it ended without."""
        name, deadline = f"r{self.runs.index(run)}", time.monotonic() + 90
        while sum(work.run == name for work in self.work()) < pieces:
            if run.poll() is not None:
                return False
            assert time.monotonic() < deadline, "the run did nothing for 90 s"
            time.sleep(0.01)
        return True

    def kill(self, run: subprocess.Popen[str], how: Callable[[subprocess.Popen[str]], None]) -> bool:
        """Kill a run; False: it had ended."""
        if run.poll() is not None:
            return False
        how(run)
        at = time.time()
        self.deaths.append(Death(at, f"r{self.runs.index(run)}", self.stored()))
        return run.wait(30) == -signal.SIGKILL

    def stored(self) -> frozenset[tuple[str, int]]:
        """The work whose outcome stands in some part at this moment."""
        found: set[tuple[str, int]] = set()
        for part in (self.folder / "root").glob("steps/*/parts/*.parquet"):
            step = PARTS.get(part.parts[-3].split("-")[0])
            if step is None:
                continue
            column = "generation" if step == "llm" else "n"
            try:
                values = pq.read_table(part, columns=[column]).column(column).to_pylist()
            except FileNotFoundError:  # merged into a larger one meanwhile
                continue
            found.update((step, int(value)) for value in values)
        return frozenset(found)

    def result(self, run: subprocess.Popen[str], timeout: float = 120) -> dict[str, Any]:
        """Let a run end, see that it gives what it must, and return its report."""
        name = f"r{self.runs.index(run)}"
        code = run.wait(timeout)
        assert code == 0, (self.folder / f"{name}.err").read_text(encoding="utf-8")
        printed = (self.folder / f"{name}.out").read_text(encoding="utf-8").splitlines()[-1]
        told = json.loads(printed)
        assert told["rows"] == expected_rows()
        report: dict[str, Any] = told["report"]
        return report

    def repeated(self) -> Counter[tuple[str, int]]:
        """How often each piece of work was done again; each must have been done."""
        times = Counter(work.piece for work in self.work())
        assert set(times) == EVERYTHING
        return times - Counter(EVERYTHING)

    def end(self) -> None:
        """Kill what still runs."""
        for run in self.runs:
            if run.poll() is None:
                kill_everything(run)
            run.wait()
