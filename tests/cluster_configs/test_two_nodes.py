"""local/two_nodes.sh makes a cluster of two nodes, on which pipelines and jobs run, and stops no other."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cluster_configs.configs import CONFIGS

SCRIPT = str(CONFIGS / "local" / "two_nodes.sh")
PIPELINE = str(Path(__file__).with_name("two_places.py"))
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.timeout(400)  # a Ray is started up to three times


@dataclass(frozen=True)
class TwoNodes:
    """The script, with a folder and ports of the test's own."""

    folder: Path
    environment: dict[str, str]

    def call(self, verb: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", SCRIPT, verb]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line as a user would, in a shell that has been told of the cluster."""
        line = f'eval "$({SCRIPT} env)" && {line}'
        return subprocess.run(
            ["bash", "-c", line],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """All that is left of the two nodes."""
        alive = []
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.folder) in argument for argument in process.info["cmdline"] or ()):
                alive.append(process)
        return alive


@pytest.fixture
def two_nodes(cache_root: Path) -> Iterator[TwoNodes]:
    folder = Path("/tmp") / f"two-{secrets.token_hex(3)}"  # short: sockets live below
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "TWO_NODES_DIR": str(folder),
        "TWO_NODES_PORT": str(four_free_ports()),
        "WORKER_CPUS": "0",
        "WORKER_GPUS": "1",
        "WORKER_RESOURCES": '{"accelerator_type:L4": 1}',
        "DISTILL_RAY_CACHE_DIR": str(cache_root),
        "DISTILL_RAY_PROGRESS": "plain",
    }
    nodes = TwoNodes(folder, environment)
    try:
        yield nodes
    finally:
        nodes.call("down")
        for process in nodes.processes():
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def four_free_ports() -> int:
    """The first of four neighbours that nobody listens on, outside of the ports that Ray's workers take."""
    for port in range(24000, 32000, 4):
        with socket.socket() as first, socket.socket() as second:
            if all(s.connect_ex(("127.0.0.1", port + n)) for n, s in enumerate((first, second))):
                return port
    raise AssertionError("no free ports")


def rows_in(output: str) -> dict[str, list[dict[str, str]]]:
    """What the script printed, by step."""
    (line,) = (line for line in output.splitlines() if line.startswith("ROWS "))
    rows: dict[str, list[dict[str, str]]] = json.loads(line.removeprefix("ROWS "))
    return rows


@pytest.mark.slow
def test_a_pipeline_uses_both_nodes_and_nothing_is_left_of_them(two_nodes: TwoNodes) -> None:
    up = two_nodes.call("up")
    assert up.returncode == 0, up.stderr

    ran = two_nodes.shell(f"python {PIPELINE}")
    assert ran.returncode == 0, ran.stderr
    rows = rows_in(ran.stdout)
    nodes = {leaf: {row["node"] for row in made} for leaf, made in rows.items()}
    assert [len(made) for made in rows.values()] == [40, 40]
    assert len(nodes["on_cpu"]) == len(nodes["on_gpu"]) == 1
    assert nodes["on_cpu"] != nodes["on_gpu"]
    assert {row["gpu"] for row in rows["on_gpu"]} == {"0"}

    down = two_nodes.call("down")
    assert down.stdout == "Stopped the worker.\nStopped the head.\n"
    assert two_nodes.processes() == []
    assert two_nodes.call("down").stdout == ""


@pytest.mark.slow
def test_a_job_runs_on_it_and_a_second_pair_is_not_started(two_nodes: TwoNodes) -> None:
    assert two_nodes.call("up").returncode == 0
    again = two_nodes.call("up")
    assert again.returncode == 1
    assert "runs already" in again.stderr

    folder, script = Path(PIPELINE).parent, Path(PIPELINE).name
    first = two_nodes.shell(f"ray job submit --working-dir {folder} -- distill-ray run {script}")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "complete, 0 rows reused" in first.stdout
    second = two_nodes.shell(f"distill-ray submit {PIPELINE} --follow")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "complete hit" in second.stdout


@pytest.mark.slow
def test_a_node_that_does_not_start_is_named_with_its_log_and_nothing_is_left(two_nodes: TwoNodes) -> None:
    two_nodes.environment["WORKER_RESOURCES"] = "no JSON"
    up = two_nodes.call("up")
    assert up.returncode == 1
    assert "The worker did not start." in up.stderr
    assert "resources" in up.stderr
    assert two_nodes.processes() == []


@pytest.mark.slow
def test_nobody_without_the_token_uses_it(two_nodes: TwoNodes) -> None:
    assert two_nodes.call("up").returncode == 0
    refused = two_nodes.shell(f"RAY_AUTH_MODE=disabled distill-ray run {PIPELINE}")
    assert refused.returncode != 0
    assert oct((two_nodes.folder / "auth_token").stat().st_mode & 0o777) == "0o600"


@pytest.mark.slow
def test_what_does_not_heed_the_request_to_stop_is_killed(two_nodes: TwoNodes) -> None:
    assert two_nodes.call("up").returncode == 0
    worker = int((two_nodes.folder / "worker.pid").read_text())
    os.kill(worker, signal.SIGSTOP)
    assert two_nodes.call("down").returncode == 0
    assert two_nodes.processes() == []
