"""Stopping a run by signals: what was finished is kept, and the next run computes only the rest."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import DISTILL_RAY, Shell, wait_until

ROWS = 60

SCRIPT = f"""\
import time
from pathlib import Path

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, RuntimeParameter, Step, StepInput, StepOutput
from distill_ray.types import Unsigned


class Slow(Step):
    pause: Unsigned[RuntimeParameter[float]] = 0.1
    seen: Unsigned[str] = str(Path(__file__).with_name("seen"))

    @property
    def inputs(self):
        return ["n"]

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            with open(self.seen, "a") as file:
                file.write(f"{{row['n']}}\\n")
            time.sleep(self.pause)
        yield inputs


with Pipeline(name="slow") as pipeline:
    load = LoadDataFromDicts(name="load", data=[{{"n": n}} for n in range({ROWS})])
    load >> Slow(name="slow", input_batch_size=4)
"""


def seen(folder: Path) -> list[int]:
    """Rows that ``process`` was given, over all runs."""
    path = folder / "seen"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_resumes_and_computes_only_the_rest(
    shell: Shell, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    process = shell.start(DISTILL_RAY, "run", "slow.py", "--json")
    wait_until(lambda: len(seen(tmp_path)) >= 10)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    record = json.loads(out)
    assert (record["status"], record["exit_code"]) == ("interrupted", code)
    assert "stopping: what is under way ends" in err
    assert "pipeline 'slow': stopped" in err
    finished = len(seen(tmp_path))
    assert 10 <= finished < ROWS

    # Everything that was begun was finished and stored: no row is computed twice.
    again = shell.distill_ray("run", "slow.py", "--json", "--engine", "inline", "--param", "slow.pause=0")
    assert again.returncode == 0, again.stderr
    step = json.loads(again.stdout)["steps"]["slow"]
    assert (step["decision"], step["rows_out"]) == ("resume", ROWS)
    assert (step["rows_reused"], step["rows_computed"]) == (finished, ROWS - finished)
    assert seen(tmp_path) == list(range(ROWS))


def test_a_second_signal_stops_at_once(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    process = shell.start(DISTILL_RAY, "run", "slow.py", "--param", "slow.pause=20")
    wait_until(lambda: len(seen(tmp_path)) >= 1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert time.monotonic() - started < 10
    assert "distill-ray: The run was ended at once." in err
    assert "  distill-ray run slow.py --param slow.pause=20\n" in err
    assert "Traceback" not in err
