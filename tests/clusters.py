"""Ray clusters of several nodes on this machine, each node a group of real processes with folders of its own.

    with Cluster() as cluster:                      # a head without CPUs: nothing is placed on it
        big = cluster.add_node(cpus=2, gpus=1)      # made-up GPUs
        cluster.add_nodes({"cpus": 1}, {"cpus": 1}) # at the same time: quicker
        ran = cluster.run(sys.executable, "driver.py")  # RAY_ADDRESS and PYTHONPATH are set
        big.kill()                                  # raylet, workers and all, at once

The fixture `cluster` is one for each session, with three worker nodes; tests that kill nodes add their own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from typing_extensions import Self

ROOT = Path(__file__).parents[1]

RAY = str(Path(sys.executable).with_name("ray"))

START_SECONDS = 90

STORE_BYTES = 100 << 20
"""Size of each node's object store."""


@dataclass
class Node:
    """One node: a ``ray start --block`` and the processes below it.

    Attributes:
        name: also the node's label ``name``, for ``ray.nodes()``, and ``NODE_NAME`` for what runs there.
        folder: Ray's files of this node, and its ``start.log``.
        process: the ``ray start``.
    """

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "start.log").read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """Everything of this node: raylet, agents and workers."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """End it as a power failure does: SIGKILL for all its processes."""
        self._end(signal.SIGKILL)

    def stop(self, seconds: float = 20) -> None:
        """End it as a node that is taken away: SIGTERM for the ``ray start``, SIGKILL for what is left."""
        running = self.processes()
        self.process.terminate()
        psutil.wait_procs(running, timeout=seconds)
        self._end(signal.SIGKILL, running)

    def wait_started(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in self.log:
            assert self.alive, f"the node '{self.name}' did not start:\n{self.log}"
            assert time.monotonic() < deadline, f"'{self.name}' took over {START_SECONDS} s:\n{self.log}"
            time.sleep(0.05)

    def _end(self, how: signal.Signals, known: Sequence[psutil.Process] = ()) -> None:
        # Again until there are none: a raylet that is still there starts new workers meanwhile.
        while running := [each for each in {*self.processes(), *known} if each.is_running()]:
            for each in running:
                try:
                    each.send_signal(how)
                except psutil.NoSuchProcess:
                    continue
            self.process.wait(20)
            known = psutil.wait_procs(running, timeout=20)[1]
        self.process.wait(20)  # whoever ended it


@dataclass
class Cluster:
    """A head without CPUs, and the nodes that are added to it.

    Attributes:
        dashboard: whether the head has the dashboard, and with it the Jobs API.
        environment: variables for every node; a node may have more of its own.
        head_cpus: CPUs of the head.
        address: of the cluster, for ``RAY_ADDRESS``.
        client_address: for drivers that are on none of its nodes.
        dashboard_url: of the Jobs API, for ``ray job submit --address``.
        nodes: those that were added, dead ones too.
    """

    dashboard: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    head_cpus: int = 0
    address: str = field(init=False)
    client_address: str = field(init=False)
    dashboard_url: str = field(init=False, default="")
    head: Node = field(init=False)
    nodes: list[Node] = field(init=False, default_factory=list)

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # short: sockets' names are limited
        port, client_port, dashboard_port = free_ports(3)
        self.address = f"{_own_address()}:{port}"
        self.client_address = f"ray://127.0.0.1:{client_port}"
        options = ["--head", f"--port={port}", f"--ray-client-server-port={client_port}"]
        options += [f"--include-dashboard={self.dashboard}", f"--num-cpus={self.head_cpus}"]
        if self.dashboard:
            options += [f"--dashboard-port={dashboard_port}", "--dashboard-host=127.0.0.1"]
            self.dashboard_url = f"http://127.0.0.1:{dashboard_port}"
        self.head = self._start("head", [*options, "--num-gpus=0"])
        try:
            self.head.wait_started()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_nodes(self, *wanted: Mapping[str, Any]) -> list[Node]:
        """Add several nodes at the same time, each by the arguments of `add_node`."""
        nodes = [self._begin_node(**each) for each in wanted]
        for node in nodes:
            node.wait_started()
        return nodes

    def add_node(self, **wanted: Any) -> Node:
        """Add a node and wait until it is up.

        Args:
            wanted: ``cpus``; ``gpus``, made up; ``resources`` by name (``{"accelerator_type:A100": 1}`` for a
                kind of accelerator); ``labels``; ``name``; ``environment``: variables of its processes;
                ``options``: more of ``ray start``'s.
        """
        return self.add_nodes(wanted)[0]

    def driver_environment(self, **more: str) -> dict[str, str]:
        """The variables of a process that uses this cluster."""
        return {
            **os.environ,
            **self.environment,
            "RAY_ADDRESS": self.address,
            "RAY_TMPDIR": str(self.folder / "head"),
            "RAY_AUTH_MODE": "disabled",
            "PYTHONPATH": str(ROOT),
            **more,
        }

    def start(self, *command: str, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
        """Start a driver in a process group of its own; ``more`` are variables."""
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=self.driver_environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *command: str, cwd: Path | None = None, timeout: float = 120, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a driver to its end; ``more`` are variables."""
        return subprocess.run(
            command,
            cwd=cwd,
            env=self.driver_environment(**more),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def close(self) -> None:
        """End all nodes, whatever state they are in."""
        for node in (*self.nodes, self.head):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin_node(
        self,
        *,
        cpus: float = 1,
        gpus: int = 0,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        name: str = "",
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> Node:
        name = name or f"node{len(self.nodes)}"
        asked = [f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        asked += [f"--resources={json.dumps(dict(resources or {}))}"]
        node = self._start(name, [*asked, *options], labels or {}, environment or {})
        self.nodes.append(node)
        return node

    def _start(
        self,
        name: str,
        options: Sequence[str],
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Node:
        folder = self.folder / name
        folder.mkdir()
        marks = ",".join(f"{key}={value}" for key, value in {**(labels or {}), "name": name}.items())
        command = [RAY, "start", "--block", f"--labels={marks}", f"--temp-dir={folder}", *options]
        # Ports that the system gives: the usual range is shared by all Rays of a machine.
        command += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={STORE_BYTES}"]
        command += [f"--dashboard-agent-listen-port={free_ports(1)[0]}"]  # without it there are no jobs
        own = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        own |= {
            "HOME": str(folder),
            "NODE_NAME": name,
        }  # a home of its own: nodes share no folder by accident
        unset = {"RAY_ADDRESS", "RAY_JOB_ID", "CUDA_VISIBLE_DEVICES"}
        inherited = {key: value for key, value in os.environ.items() if key not in unset}
        with (folder / "start.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--disable-usage-stats"],
                cwd=folder,
                env={**inherited, **self.environment, **own, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Node(name, folder, process)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on: the system gives none of 10002 to 19999, which Ray's workers use."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _own_address() -> str:
    """The address that Ray gives this machine."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


@pytest.fixture(scope="session")
def cluster(gcs_endpoint: str) -> Iterator[Cluster]:
    """A head and three worker nodes with different resources, started once: kill none of these.

    What is needed to reach ``gs://`` is said by variables of each node, as a real one has credentials.
    """
    reach = {"ENDPOINT_URL": gcs_endpoint, "TOKEN": "anon", "PROJECT": "test"}
    with Cluster(environment={f"FSSPEC_GCS_{name}": value for name, value in reach.items()}) as started:
        started.add_nodes(
            {"name": "plain", "cpus": 2, "resources": {"plain": 10}},
            {"name": "gpus", "cpus": 1, "gpus": 2, "resources": {"accelerator_type:A100": 1}},
            {"name": "ssd", "cpus": 1, "gpus": 1, "resources": {"ssd": 1, "accelerator_type:L4": 1}},
        )
        yield started
