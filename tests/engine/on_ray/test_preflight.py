"""Before the first batch: nodes that cannot use the cache root are found and named."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

import distill_ray
from distill_ray.engine.on_ray.preflight import check_nodes
from distill_ray.resources import StepResources
from distill_ray.storage import open_storage
from tests.acceptance.conftest import DISTILL_RAY
from tests.clusters import Cluster
from tests.faulty_proxy import FaultyProxy
from tests.gcs_server import GcsRoot

SCRIPT = """\
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepResources

with Pipeline(name="preflight") as pipeline:
    load = LoadDataFromDicts(name="load", data=[{"n": 1}], resources=StepResources(resources=RESOURCES))
"""

NODE_DIES = """\
import os, signal, sys, threading, time
from pathlib import Path

import psutil
import ray

from distill_ray.engine.on_ray.each_node import ask_each, living_nodes
from distill_ray.engine.on_ray.connection import connect

connect()
nodes = living_nodes()
begun = Path(sys.argv[1])

def slow():
    begun.touch()
    time.sleep(60)

def kill():
    while not begun.exists():
        time.sleep(0.05)
    top = psutil.Process(int(sys.argv[2]))
    for process in [*top.children(recursive=True), top]:
        process.kill()

threading.Thread(target=kill).start()
mortal = [node for node in nodes if "mortal" in node.resources]
assert len(mortal) == 1
print(ask_each(mortal, slow, seconds=50))
"""


def test_a_local_run_asks_nobody(local_ray: None, tmp_path: Path) -> None:
    root = tmp_path / "root"
    check_nodes(open_storage(str(root)), {"load": StepResources()})
    assert not root.exists()


def run(cluster: Cluster, folder: Path, resource: str, *options: str) -> tuple[int, str]:
    """Run a pipeline whose only step needs a resource, or none at all; exit code, and what it said."""
    script = folder / "preflight_script.py"
    script.write_text(SCRIPT.replace("RESOURCES", repr({resource: 1} if resource else {})))
    ran = cluster.run(DISTILL_RAY, "run", str(script), *options, cwd=folder)
    return ran.returncode, ran.stderr


def test_a_folder_that_nodes_do_not_share_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    # One path, and another folder for each process: as /home is on machines of their own. Any node may run
    # the step, for the driver's own is not asked where it is the only one.
    code, told = run(cluster, tmp_path, "", "--cache-dir", "/proc/self/cwd/root")
    assert code == 3, told
    assert re.search(
        r"/proc/self/cwd/root cannot be used from (\d) of the \1 nodes that may run a step", told
    )
    assert "It is a folder of one machine: give a bucket" in told
    assert not list((tmp_path / "root" / "probes").iterdir())
    assert not list(tmp_path.glob("root/steps/*/parts/*"))


@pytest.mark.slow
def test_a_node_without_access_is_named_and_only_where_it_may_run_a_step(
    cluster: Cluster, gcs_root: GcsRoot, faulty_proxy: FaultyProxy, tmp_path: Path
) -> None:
    faulty_proxy.refuse(lambda _: True, 403, "caller does not have storage.objects.get access")
    shut_out = {"FSSPEC_GCS_ENDPOINT_URL": faulty_proxy.url}
    node = cluster.add_node(name="shut-out", cpus=1, resources={"guest": 1, "plain": 1}, environment=shut_out)
    try:
        code, told = run(cluster, tmp_path, "plain", "--cache-dir", gcs_root.url)
        assert code == 3, told
        assert "cannot be used from 1 of the 2 nodes that may run a step" in told
        assert "caller does not have storage.objects.get access" in told
        assert f"distill-ray doctor --cache-dir {gcs_root.url}" in told
        assert open_storage(gcs_root.url, gcs_root.storage_options).sizes("probes") == {}

        code, told = run(cluster, tmp_path, "ssd", "--cache-dir", gcs_root.url)
        assert code == 0, told

        asked = ("doctor", "--cache-dir", gcs_root.url, "--address", cluster.address, "--json")
        looked = cluster.run(DISTILL_RAY, *asked)
        assert looked.returncode == 3, looked.stderr
        here, *nodes = json.loads(looked.stdout)["machines"]
        errors = [each["error"] for each in nodes if each["error"]]
        assert len(errors) == 1
        assert "roles/storage.objectUser" in errors[0]
        for each in nodes:
            assert each["found"]["versions"] == here["found"]["versions"]
            assert each["found"]["credentials"] == ["configuration of fsspec"]
            assert each["error"] or each["found"]["speed"]["exclusive"]
            assert abs(each["clock"]) < 5
    finally:
        node.stop()


@pytest.mark.slow
def test_a_node_with_another_distill_ray_or_none_is_named(cluster: Cluster, tmp_path: Path) -> None:
    ours = Path(distill_ray.__file__).parent
    for name in ("other", "none"):
        package = tmp_path / name / "distill_ray"
        shutil.copytree(ours, package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / "__init__.py").write_text('__version__ = "0.0.1"')
    shutil.rmtree(tmp_path / "none" / "distill_ray" / "engine")
    nodes = cluster.add_nodes(
        *(
            {"name": name, "resources": {name: 1}, "environment": {"PYTHONPATH": str(tmp_path / name)}}
            for name in ("other", "none")
        )
    )
    try:
        code, told = run(cluster, tmp_path, "other", "--cache-dir", str(tmp_path / "root"))
        assert code == 4, told
        assert f"The driver has distill_ray {distill_ray.__version__}" in told
        assert told.count(": 0.0.1") == 1

        code, told = run(cluster, tmp_path, "none", "--cache-dir", str(tmp_path / "root"))
        assert code == 3, told
        assert "distill_ray is not installed there" in told
    finally:
        for node in nodes:
            node.stop()


@pytest.mark.slow
def test_a_node_that_dies_while_it_is_asked_is_no_error(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node(name="mortal", cpus=1, resources={"mortal": 1})
    script = tmp_path / "node_dies.py"
    script.write_text(NODE_DIES)
    asked = cluster.run(sys.executable, str(script), str(tmp_path / "begun"), str(node.process.pid))
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines()[-1] == "[]"
