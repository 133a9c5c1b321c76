"""Stopping a run by signals: what was finished is kept, and the next run computes only the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
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


def processes(shell: Shell) -> list[int]:
    """What runs with the shell's cache root: drivers, and all that Ray started for them."""
    root = shell.environment["DISTILL_RAY_CACHE_DIR"]
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DISTILL_RAY_CACHE_DIR") == root and process.status() != "zombie":
                found.append(process.pid)
    return found


def assert_nothing_is_left(shell: Shell) -> None:
    wait_until(lambda: not processes(shell), 20)
    root = Path(shell.environment["DISTILL_RAY_CACHE_DIR"])
    assert not list(root.rglob(".tmp-*"))
    beats = [json.loads(path.read_bytes()) for path in root.glob("runs/*/heartbeat.json")]
    assert beats
    assert {beat["status"] for beat in beats} == {"ended"}


def said(process: subprocess.Popen[str], text: str) -> str:
    """Wait until a command says something; returns all that it said until then."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"it never said {text!r}, but: {''.join(lines)}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_resumes_and_computes_only_the_rest(
    shell: Shell, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    process = shell.start(DISTILL_RAY, "run", "slow.py", "--json")
    wait_until(lambda: len(seen(tmp_path)) >= 10)
    send = os.killpg if number == signal.SIGINT else os.kill  # a terminal tells Ray's processes, too
    send(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    record = json.loads(out)
    assert (record["status"], record["exit_code"]) == ("interrupted", code)
    assert "stopping: what is under way ends" in err
    assert "pipeline 'slow': stopped" in err
    finished = len(seen(tmp_path))
    assert 10 <= finished < ROWS
    assert_nothing_is_left(shell)

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
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert time.monotonic() - started < 10
    assert "distill-ray: The run was ended at once." in err
    assert "  distill-ray run slow.py --param slow.pause=20\n" in err
    assert "Traceback" not in err
    assert_nothing_is_left(shell)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("seconds", [0.2, 1.0, 2.5, 4.0])
def test_a_signal_while_ray_starts_ends_the_run_and_what_was_started(
    shell: Shell, tmp_path: Path, seconds: float, number: signal.Signals, code: int
) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    process = shell.start(DISTILL_RAY, "run", "slow.py")
    said(process, "pipeline 'slow'")
    time.sleep(seconds)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "run it again" in err
    assert "Traceback" not in err
    assert_nothing_is_left(shell)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "inline"])
def test_a_run_that_waits_for_another_one_does_not_wait_to_be_stopped(
    shell: Shell, tmp_path: Path, engine: str
) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    holder = shell.start(DISTILL_RAY, "run", "slow.py", "--engine", "inline", "--param", "slow.pause=60")
    wait_until(lambda: len(seen(tmp_path)) >= 1)
    process = shell.start(DISTILL_RAY, "run", "slow.py", "--engine", engine)
    said(process, "waits for run")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert len(seen(tmp_path)) == 1
    for _ in range(2):
        holder.send_signal(signal.SIGTERM)
        time.sleep(1)
    holder.communicate(timeout=30)
    assert holder.returncode == 143
    assert_nothing_is_left(shell)


@pytest.mark.slow
def test_a_script_in_a_thread_of_which_a_pipeline_runs_hears_signals_itself(
    shell: Shell, tmp_path: Path
) -> None:
    """As a server would have it: its main thread decides, and the run goes on to its end."""
    start = (
        "import threading\n"
        "thread = threading.Thread(target=lambda: pipeline.run(engine='inline'))\n"
        "thread.start()\n"
        "while thread.is_alive():\n"
        "    try:\n        time.sleep(0.1)\n"
        "    except KeyboardInterrupt:\n        print('heard')\n"
    )
    (tmp_path / "slow.py").write_text(SCRIPT + start)
    process = shell.start(sys.executable, "slow.py")
    wait_until(lambda: len(seen(tmp_path)) >= 4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "heard\n"), err
    assert seen(tmp_path) == list(range(ROWS))
    assert_nothing_is_left(shell)
