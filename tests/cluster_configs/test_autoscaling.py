"""A run starts on a cluster without workers: Ray's autoscaler brings the kinds of node that steps want."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import ResourceError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import KeepColumns, LoadDataFromDicts, StepResources
from tests.cluster_configs.configs import read
from tests.cluster_configs.test_two_nodes import four_free_ports, rows_in

PIPELINE = str(Path(__file__).with_name("two_places.py"))
RAY = str(Path(sys.executable).with_name("ray"))


def pipeline_for_a_gpu() -> Pipeline:
    with Pipeline(name="gpu") as pipeline:
        load = LoadDataFromDicts(data=[{"n": 1}])
        load >> KeepColumns(columns=["n"], resources=StepResources(gpus=1, accelerator_type="L4"))
    return pipeline


def test_what_no_node_has_is_refused_unless_nodes_may_come(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ResourceError, match="DISTILL_RAY_WAIT_FOR_RESOURCES"):
        pipeline_for_a_gpu().run()

    monkeypatch.setenv("DISTILL_RAY_WAIT_FOR_RESOURCES", "0.5")
    with pytest.raises(
        ResourceError, match=r"Step 'keep_columns_\d': no node with .*accelerator_type:L4.* came in"
    ):
        pipeline_for_a_gpu().run()


@pytest.fixture
def autoscaled() -> Iterator[str]:
    """The address of a head whose autoscaler makes the nodes of gcp/cluster.yaml out of processes."""
    folder = Path("/tmp") / f"as-{os.getpid()}"
    folder.mkdir()
    port = four_free_ports()
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(made_of_processes(f"127.0.0.1:{port}")))
    command = [RAY, "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1"]
    command += ["--num-cpus=0", "--num-gpus=0", f"--autoscaling-config={config}", f"--temp-dir={folder}"]
    command += ["--include-dashboard=false", f"--dashboard-agent-listen-port={port + 1}"]
    settings = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(
            command,
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while b"Ray runtime started" not in (folder / "head.log").read_bytes():
            assert head.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def made_of_processes(address: str) -> dict[str, Any]:
    """gcp/cluster.yaml for Ray's provider that starts a raylet where Google's starts a machine."""
    config = read("gcp/cluster.yaml")
    types = {}
    for name, node in config["available_node_types"].items():
        resources = {key: n for key, n in node["resources"].items() if "memory" not in key}
        types[name] = {
            **node,
            "node_config": {},
            "resources": {**resources, "object_store_memory": 80 * 10**6},
        }
        types[name].pop("docker", None)
    types["head"] |= {"min_workers": 0, "max_workers": 0}
    types["ray.head.default"] = types.pop("head")  # as this provider calls it
    commands = [f"{kind}setup_commands" for kind in ("", "head_", "worker_")]
    commands += ["initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"]
    return {
        **{key: [] for key in [*commands, "cluster_synced_files", "rsync_exclude", "rsync_filter"]},
        "cluster_name": "processes",
        "max_workers": config["max_workers"],
        "upscaling_speed": config["upscaling_speed"],
        "idle_timeout_minutes": config["idle_timeout_minutes"],
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "disable_node_updaters": True,
            "worker_liveness_check": False,
        },
    }


@pytest.mark.slow
def test_the_kinds_of_node_that_steps_want_are_brought(autoscaled: str, cache_root: Path) -> None:
    settings = {
        "RAY_ADDRESS": autoscaled,
        "RAY_AUTH_MODE": "disabled",
        "DISTILL_RAY_CACHE_DIR": str(cache_root),
        "DISTILL_RAY_WAIT_FOR_RESOURCES": "90",
    }
    ran = subprocess.run(
        [sys.executable, PIPELINE],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows = rows_in(ran.stdout)
    assert [len(made) for made in rows.values()] == [40, 40]
    assert {row["gpu"] for row in rows["on_gpu"]} == {"0"}
