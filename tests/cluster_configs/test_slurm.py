"""slurm/distill_ray.sbatch, run for real with two nodes of this machine in the place of Slurm's."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cluster_configs.configs import CONFIGS

SCRIPT = CONFIGS / "slurm" / "distill_ray.sbatch"
PIPELINE = str(Path(__file__).with_name("two_places.py"))
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.timeout(400)  # a Ray is started up to three times

SRUN = """#!/usr/bin/env bash
# Runs the step here. Like Slurm, it notes what it was asked, and hands signals on (by exec).
echo "srun $*" >>"$SHIMS/calls"
while [[ $1 == --* ]]; do
    [[ $1 == --nodelist=node-b ]] && export WORKER=1
    shift
done
# Two nodes of one machine: the second has a GPU, and its agent a port of its own.
if [[ $1 == ray && -n ${WORKER:-} ]]; then
    shift
    args=("${@/--num-gpus=0/--num-gpus=1}")
    exec ray "${args[@]/--dashboard-agent-listen-port=*/--dashboard-agent-listen-port=0}" \\
        --resources='{"accelerator_type:L4": 1}'
fi
exec "$@"
"""

SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$SHIMS/calls"
[[ $1 == show ]] && printf 'node-a\\nnode-b\\n'
exit 0
"""


@dataclass(frozen=True)
class Slurm:
    """A job of two nodes, as Slurm would start it on the first."""

    folder: Path
    job: int
    environment: dict[str, str]

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        with (self.folder / "output.log").open("w") as output:
            return subprocess.Popen(
                ["bash", str(SCRIPT), *arguments],
                cwd=self.folder,
                env={**self.environment, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def output(self) -> str:
        return (self.folder / "output.log").read_text()

    def calls(self) -> list[str]:
        """What Slurm was asked."""
        return (self.folder / "calls").read_text().splitlines()

    def processes(self) -> list[psutil.Process]:
        """All that is left of the job's Ray."""
        mine = f"/tmp/ray-{self.job}"
        return [p for p in psutil.process_iter(["cmdline"]) if mine in " ".join(p.info["cmdline"] or ())]


@pytest.fixture
def slurm(tmp_path: Path, cache_root: Path) -> Iterator[Slurm]:
    job = 10**6 + secrets.randbelow(10**6)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    slurm = Slurm(
        tmp_path,
        job,
        {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{BIN}:{os.environ['PATH']}",
            "SHIMS": str(tmp_path),
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_GPUS_ON_NODE": "0",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "DISTILL_RAY_CACHE_DIR": str(cache_root),
            "DISTILL_RAY_PROGRESS": "plain",
        },
    )
    try:
        yield slurm
    finally:
        for process in slurm.processes():
            process.kill()
        shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)


@pytest.mark.slow
def test_a_pipeline_runs_on_all_nodes_and_nothing_is_left(slurm: Slurm) -> None:
    job = slurm.start("run", PIPELINE)
    assert job.wait(timeout=150) == 0, slurm.output()
    assert "pipeline 'two_places': complete" in slurm.output()
    steps = [call for call in slurm.calls() if call.startswith("srun")]
    assert ["--nodelist=node-a" in steps[0], "--nodelist=node-b" in steps[1]] == [True, True]
    assert all("--num-cpus=1" in call for call in steps[:2])
    assert slurm.processes() == []
    assert not Path(f"/tmp/ray-{slurm.job}").exists()


@pytest.mark.slow
def test_the_doctor_sees_all_nodes_of_this_job(slurm: Slurm) -> None:
    job = slurm.start("doctor", "--address", "auto", "--json")
    assert job.wait(timeout=150) == 0, slurm.output()
    report = json.loads(slurm.output())
    assert report["status"] == "usable"
    assert len(report["machines"]) == 3, "where it runs, and both nodes"


@pytest.mark.slow
def test_asked_to_stop_it_stops_cleanly_is_queued_again_and_resumes(slurm: Slurm) -> None:
    job = slurm.start("run", PIPELINE, SECONDS_A_ROW="0.5", DISTILL_RAY_REQUEUE="1")
    deadline = time.monotonic() + 120
    while "on_gpu: 1 of 1 replicas up" not in slurm.output():
        assert time.monotonic() < deadline, slurm.output()
        assert job.poll() is None, slurm.output()
        time.sleep(0.2)
    time.sleep(5)  # some batches of either step
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=100) == 143, slurm.output()
    assert "Stopped before it was done: queued again" in slurm.output()
    assert f"scontrol requeue {slurm.job}" in slurm.calls()
    assert slurm.processes() == []

    again = slurm.start("run", PIPELINE, "--json")
    assert again.wait(timeout=150) == 0, slurm.output()
    assert "resume: 0 rows reused" not in slurm.output()
    assert "resume:" in slurm.output()


@pytest.mark.slow
def test_a_pipeline_that_fails_fails_the_job_and_is_not_queued_again(slurm: Slurm) -> None:
    job = slurm.start("run", "no_such_script.py", DISTILL_RAY_REQUEUE="1")
    assert job.wait(timeout=150) == 2
    assert "There is no script no_such_script.py" in slurm.output()
    assert not any("requeue" in call for call in slurm.calls())
    assert slurm.processes() == []


@pytest.mark.slow
def test_a_node_that_does_not_start_fails_the_job_with_its_log(slurm: Slurm) -> None:
    job = slurm.start("run", PIPELINE, SLURM_GPUS_ON_NODE="many")
    assert job.wait(timeout=150) == 1
    assert "Ray did not start on every node." in slurm.output()
    assert "many" in slurm.output()
    assert slurm.processes() == []


def test_without_a_cache_root_it_starts_nothing(slurm: Slurm) -> None:
    del slurm.environment["DISTILL_RAY_CACHE_DIR"]
    assert slurm.start("run", PIPELINE).wait(timeout=20) != 0
    assert "DISTILL_RAY_CACHE_DIR: set it to a folder that all nodes share" in slurm.output()
    assert not (slurm.folder / "calls").exists()
