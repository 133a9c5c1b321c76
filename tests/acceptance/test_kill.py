"""SIGKILL of the driver at any moment costs at most the flush interval: nothing else is computed again.

``pytest -m slow tests/acceptance/test_kill.py`` kills at ten random moments, the driver alone and every
process at once; the usual suite kills one driver.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROWS = 400
FLUSH_SECONDS = 1.0
WRITE_SECONDS = 1.5
"""Time that gathering, writing and syncing a part may take on a busy machine of two cores."""

SCRIPT = f"""
import json
import sys
import time
from pathlib import Path

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput, StepResources

LOG = Path(__file__).with_name("computed.log")


class Slow(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(0.02 * len(inputs))
        with LOG.open("a") as file:
            file.writelines(f"{{row['n']}} {{time.time()}}\\n" for row in inputs)
        yield [{{**row, "square": row["n"] ** 2}} for row in inputs]


with Pipeline(name="killed", cache_dir=Path(__file__).with_name("cache")) as pipeline:
    load = LoadDataFromDicts(data=[{{"n": n}} for n in range({ROWS})])
    load >> Slow(name="slow", input_batch_size=4, resources=StepResources(replicas=2, cpus=0.5))

if __name__ == "__main__":
    distiset = pipeline.run()
    print(json.dumps(distiset["default"]["train"].to_list()))
"""


def start(folder: Path) -> subprocess.Popen[str]:
    script = folder / "pipeline.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "DISTILL_RAY_FLUSH_SECONDS": str(FLUSH_SECONDS)}
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def computed(folder: Path) -> list[tuple[int, float]]:
    """Each computed row and when that was."""
    log = folder / "computed.log"
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return [(int(line[0]), float(line[1])) for line in lines if len(line) == 2]


def kill_driver(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)


def kill_everything(process: subprocess.Popen[str]) -> None:
    """The driver, the actors and Ray at once, as when a machine loses power."""
    driver = psutil.Process(process.pid)
    for each in [*driver.children(recursive=True), driver]:
        each.kill()


def kill_and_run_again(
    folder: Path, after_seconds: float, kill: Callable[[subprocess.Popen[str]], None]
) -> dict[str, float]:
    """Kill a first run so many seconds after its first row; let a second one end. Return what was lost."""
    process = start(folder)
    deadline = time.monotonic() + 90
    while not computed(folder):
        assert process.poll() is None, "the run ended before it computed anything"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(after_seconds)
    kill(process)
    process.communicate()
    killed_at = time.time()
    time.sleep(2)  # Ray's processes end with their driver
    before = computed(folder)

    again = start(folder)
    output, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    expected = [{"n": n, "square": n**2} for n in range(ROWS)]
    assert json.loads(output.splitlines()[-1]) == expected

    times = Counter(row for row, _ in computed(folder))
    assert set(times) == set(range(ROWS))
    assert max(times.values()) <= 2
    twice = {row for row, count in times.items() if count == 2}
    safe = {row for row, at in before if at < killed_at - FLUSH_SECONDS - WRITE_SECONDS}
    assert not twice & safe, "rows older than the flush interval were computed again"
    return {"before": len(before), "again": len(twice)}


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    lost = kill_and_run_again(tmp_path, 3.0, kill_driver)
    assert lost["again"] < lost["before"] < ROWS


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kill", [kill_driver, kill_everything])
@pytest.mark.parametrize("moment", range(10))
def test_a_run_killed_at_any_moment_is_resumed(
    tmp_path: Path, moment: int, kill: Callable[[subprocess.Popen[str]], None]
) -> None:
    after = random.Random(moment).uniform(0, 4.5)
    lost = kill_and_run_again(tmp_path, after, kill)
    print(json.dumps({"killed": kill.__name__, "after_seconds": round(after, 2), "rows": ROWS, **lost}))
