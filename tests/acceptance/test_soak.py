"""A long run on four nodes beneath which replicas and nodes are killed all the time.

What it gives must be what a run gives that nobody disturbs, and what driver, replicas and nodes hold in
memory must not grow. The soak of 30 minutes, whose figures docs/reliability.md has, is ::

    DISTILL_RAY_SOAK_MINUTES=30 DISTILL_RAY_WRITE_TABLES=1 pytest -m slow tests/acceptance/test_soak.py

Without the variable it takes three minutes.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.killed_runs import Root, new_root
from tests.acceptance.measured_table import write_table
from tests.acceptance.soaked_pipeline import BATCH, Soaked
from tests.acceptance.test_node_kills import is_replica
from tests.clusters import Cluster
from tests.gcs_server import GcsRoot

SCRIPT = Path(__file__).with_name("soaked_pipeline.py")

MINUTES = float(os.environ.get("DISTILL_RAY_SOAK_MINUTES", "3"))

SECONDS = 1.0
"""What a batch costs each of the three replicas of a step."""

ROWS = int(MINUTES * 60 / SECONDS * 3 * BATCH)
"""What three replicas do in that time where nobody dies."""

NODES = 4
WORKER = {"cpus": 2}

REPLICA_SECONDS = 10.0, 20.0
"""From one kill of a replica to the next."""

NODE_SECONDS = 60.0, 120.0
"""From one kill of a node to the next; another takes its place."""

GROWTH = 1.25
"""What the last quarter of the time may hold in memory, in terms of the second."""

MEGABYTE = 1 << 20

pytestmark = pytest.mark.timeout(MINUTES * 60 * 4 + 600)


@dataclass
class Watch:
    """What was killed, and what was held in memory every second, in MB."""

    replicas: int = 0
    nodes: int = 0
    driver: list[float] = field(default_factory=list)
    replica: list[float] = field(default_factory=list)
    raylet: list[float] = field(default_factory=list)

    def look(self, driver: psutil.Process, cluster: Cluster) -> None:
        processes = [each for node in cluster.nodes if node.alive for each in node.processes()]
        self.driver.append(_megabytes(driver))
        self.replica.append(max((_megabytes(each) for each in processes if is_replica(each)), default=0.0))
        self.raylet.append(
            max((_megabytes(each) for each in processes if _name(each) == "raylet"), default=0.0)
        )


@pytest.mark.slow
def test_what_dies_all_the_time_changes_nothing(tmp_path: Path, gcs_root: GcsRoot) -> None:
    root = new_root(tmp_path, Root(gcs_root.url, gcs_root.storage_options))
    told = Soaked(root.url, str(tmp_path / "soaked.json"), ROWS, SECONDS, root.storage_options)
    watch, started = Watch(), time.monotonic()
    with Cluster() as cluster:
        cluster.add_nodes(*[WORKER] * NODES)
        with (tmp_path / "soaked.err").open("wb") as err:
            driver = subprocess.Popen(
                [sys.executable, str(SCRIPT), json.dumps(asdict(told))],
                stdout=err,
                stderr=err,
                env=cluster.driver_environment(DISTILL_RAY_PROGRESS="plain"),
                start_new_session=True,
            )
        try:
            _disturb(cluster, driver, watch)
        finally:
            driver.kill()
            driver.wait()
        said = (tmp_path / "soaked.err").read_text(errors="replace")
    seconds = time.monotonic() - started
    assert driver.returncode == 0, said[-20_000:]
    soaked = json.loads(Path(told.out).read_text(encoding="utf-8"))
    quiet = _undisturbed(tmp_path)
    assert (soaked["rows"], soaked["content"]) == (quiet["rows"], quiet["content"])
    assert watch.replicas
    write_table("acceptance/test_soak.py", [_row(watch, soaked, seconds)])
    for held in (watch.driver, watch.replica, watch.raylet):
        early, late = _quarters(held)
        assert late < early * GROWTH, f"{early:.0f} MB became {late:.0f} MB"


def _disturb(cluster: Cluster, driver: subprocess.Popen[bytes], watch: Watch) -> None:
    """Kill one thing after the other, until the run ends."""
    drawn, process = random.Random(5), psutil.Process(driver.pid)
    next_replica = time.monotonic() + drawn.uniform(*REPLICA_SECONDS)
    next_node = time.monotonic() + drawn.uniform(*NODE_SECONDS)
    while driver.poll() is None:
        time.sleep(1)
        nodes = [node for node in cluster.nodes if node.alive]
        if time.monotonic() >= next_node:
            next_node = time.monotonic() + drawn.uniform(*NODE_SECONDS)
            drawn.choice(nodes).kill()
            cluster.add_node(**WORKER)
            watch.nodes += 1
        elif time.monotonic() >= next_replica:
            next_replica = time.monotonic() + drawn.uniform(*REPLICA_SECONDS)
            if replicas := [each for node in nodes for each in node.processes() if is_replica(each)]:
                drawn.choice(replicas).kill()
                watch.replicas += 1
        watch.look(process, cluster)


def _undisturbed(folder: Path) -> dict[str, Any]:
    """The same rows from a run of its own, which takes its time for nothing."""
    told = Soaked(str(folder / "quiet"), str(folder / "quiet.json"), ROWS)
    unset = {"RAY_ADDRESS"}
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    command = [sys.executable, str(SCRIPT), json.dumps(asdict(told))]
    subprocess.run(command, check=True, env=environment, timeout=MINUTES * 60 + 300)
    found: dict[str, Any] = json.loads(Path(told.out).read_text(encoding="utf-8"))
    return found


def _row(watch: Watch, soaked: dict[str, Any], seconds: float) -> dict[str, Any]:
    lost = sum(step["replicas_lost"] for step in soaked["report"]["steps"].values())
    held = {
        f"{name}, MB, second and last quarter": " to ".join(f"{each:.0f}" for each in _quarters(memory))
        for name, memory in (
            ("driver", watch.driver),
            ("largest replica", watch.replica),
            ("largest raylet with its store", watch.raylet),
        )
    }
    return {
        "minutes": round(seconds / 60, 1),
        "rows": soaked["rows"],
        "replicas killed": watch.replicas,
        "nodes killed": watch.nodes,
        "replicas lost": lost,
        **held,
    }


def _quarters(held: list[float]) -> tuple[float, float]:
    """The medians of the second and of the last quarter of the time."""
    quarter = len(held) // 4
    return statistics.median(held[quarter : 2 * quarter]), statistics.median(held[3 * quarter :])


def _megabytes(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / MEGABYTE
    except psutil.NoSuchProcess:
        return 0.0


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""
