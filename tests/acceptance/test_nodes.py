"""Runs on a cluster of several nodes that share nothing but a bucket."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import DISTILL_RAY
from tests.acceptance.placed_pipeline import PLACES, ROWS
from tests.clusters import Cluster
from tests.faulty_proxy import FaultyProxy
from tests.gcs_server import GcsRoot

SCRIPT = Path(__file__).with_name("placed_pipeline.py")

NODES = """
import json, ray
ray.init()
print(json.dumps({node["NodeID"]: node["Labels"]["name"] for node in ray.nodes() if node["Alive"]}))
"""

Told = dict[str, Any]


@pytest.fixture(scope="session")
def names(cluster: Cluster) -> Mapping[str, str]:
    """The names of the cluster's nodes by Ray's ids."""
    asked = cluster.run(sys.executable, "-c", NODES)
    assert asked.returncode == 0, asked.stderr
    found: dict[str, str] = json.loads(asked.stdout)
    return found


def drive(cluster: Cluster, root: GcsRoot, steps: Sequence[str], **variables: Any) -> Told:
    """Run the pipeline of these steps in a process of its own; what it prints."""
    options = json.dumps(root.storage_options)
    ran = cluster.run(sys.executable, str(SCRIPT), ",".join(steps), root.url, options, **variables)
    assert ran.returncode == 0, ran.stderr
    told: Told = json.loads(ran.stdout.splitlines()[-1])
    assert [row["n"] for row in told["rows"]] == list(range(ROWS))
    return told


def computed(told: Told) -> dict[str, int]:
    return {step: record["rows_computed"] for step, record in told["report"]["steps"].items()}


def test_steps_run_only_where_there_is_what_they_declare(
    cluster: Cluster, names: Mapping[str, str], gcs_root: GcsRoot
) -> None:
    rows = drive(cluster, gcs_root, list(PLACES))["rows"]

    def where(step: str, what: str) -> set[Any]:
        return {row[step][what] for row in rows}

    nodes = {step: {names[node] for node in where(step, "node")} for step in PLACES}
    assert nodes["anywhere"] <= {"plain", "gpus", "ssd"}  # the head has no CPU
    assert nodes["plain"] == {"plain"}
    assert nodes["one_gpu"] == nodes["both_gpus"] == {"gpus"}
    assert nodes["half_gpu"] == nodes["ssd"] == {"ssd"}

    assert where("anywhere", "gpus") == where("plain", "gpus") == where("ssd", "gpus") == {""}
    assert where("both_gpus", "gpus") in ({"0,1"}, {"1,0"})
    assert where("half_gpu", "gpus") == {"0"}
    own = {(row["one_gpu"]["process"], row["one_gpu"]["gpus"]) for row in rows}
    assert {gpus for _, gpus in own} <= {"0", "1"}
    assert len(own) == len({process for process, _ in own}) == len({gpus for _, gpus in own})


def test_nodes_that_share_only_a_bucket_read_what_others_wrote(
    cluster: Cluster, names: Mapping[str, str], gcs_root: GcsRoot, tmp_path: Path
) -> None:
    first = drive(cluster, gcs_root, ["plain"])
    assert {names[row["plain"]["node"]] for row in first["rows"]} == {"plain"}

    # Another driver, another home: its step runs on another node, upon rows that are in the bucket alone.
    more = drive(cluster, gcs_root, ["plain", "ssd"], HOME=str(tmp_path))
    assert computed(more) == {"load": 0, "plain": 0, "ssd": ROWS}
    assert {names[row["ssd"]["node"]] for row in more["rows"]} == {"ssd"}
    assert [row["plain"] for row in more["rows"]] == [row["plain"] for row in first["rows"]]
    assert not {row["ssd"]["home"] for row in more["rows"]} & {row["plain"]["home"] for row in more["rows"]}
    assert not {row["ssd"]["folder"] for row in more["rows"]} & {
        row["plain"]["folder"] for row in more["rows"]
    }

    # A driver where there is no cluster at all finds everything.
    again = drive(cluster, gcs_root, ["plain", "ssd"], HOME=str(tmp_path), RAY_ADDRESS="127.0.0.1:1")
    assert again["rows"] == more["rows"]
    assert sum(computed(again).values()) == 0


def test_the_doctor_looks_at_every_node(cluster: Cluster, gcs_root: GcsRoot) -> None:
    asked = ["doctor", "--cache-dir", gcs_root.url, "--address", cluster.address]
    told = cluster.run(DISTILL_RAY, *asked, "--json")
    assert told.returncode == 0, told.stderr
    record = json.loads(told.stdout)
    here, *nodes = record["machines"]
    assert len(nodes) >= 4
    for machine in nodes:
        assert machine["found"]["versions"] == here["found"]["versions"]
        assert machine["found"]["credentials"] == ["configuration of fsspec"]
        assert machine["found"]["speed"]["exclusive"]
        assert abs(machine["clock"]) < 5
        assert machine["error"] == ""


@pytest.mark.slow
def test_faults_of_the_store_cost_neither_rows_nor_nodes(
    cluster: Cluster, far_root: GcsRoot, gcs_root: GcsRoot, faulty_proxy: FaultyProxy
) -> None:
    steps = ["plain", "one_gpu", "ssd"]
    faulty_proxy.inject(0.05)
    told = drive(cluster, far_root, steps)
    assert faulty_proxy.faults().total() > 0
    assert computed(told) == {"load": ROWS, **dict.fromkeys(steps, ROWS)}

    faulty_proxy.behave()
    again = drive(cluster, gcs_root, steps)
    assert again["rows"] == told["rows"]
    assert sum(computed(again).values()) == 0
