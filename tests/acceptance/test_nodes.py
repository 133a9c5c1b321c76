"""Runs on a cluster of several nodes that share nothing but a bucket."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.placed_pipeline import PLACES, ROWS
from tests.clusters import Cluster
from tests.faulty_proxy import FaultyProxy
from tests.gcs_server import GcsRoot

SCRIPT = Path(__file__).with_name("placed_pipeline.py")

FIRST = [name for name in PLACES if name != "ssd_again"]

Told = dict[str, Any]


@pytest.fixture(scope="module")
def root(gcs_bucket: str, gcs_options: dict[str, Any]) -> GcsRoot:
    """A cache root that these tests share."""
    return GcsRoot(f"gs://{gcs_bucket}/nodes", gcs_options)


@pytest.fixture(scope="module")
def first(cluster: Cluster, root: GcsRoot) -> Told:
    """What the first run said."""
    return drive(cluster, root, FIRST)


def drive(cluster: Cluster, root: GcsRoot, steps: Sequence[str], **variables: Any) -> Told:
    """Run the pipeline of these steps in a process of its own; what it prints."""
    options = json.dumps(root.storage_options)
    ran = cluster.run(sys.executable, str(SCRIPT), ",".join(steps), root.url, options, **variables)
    assert ran.returncode == 0, ran.stderr
    # Ray may say something of a node on standard output at any time.
    told: Told = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith('{"')))
    assert [row["n"] for row in told["rows"]] == list(range(ROWS))
    return told


def computed(told: Told) -> dict[str, int]:
    return {step: record["rows_computed"] for step, record in told["report"]["steps"].items()}


def test_steps_run_only_where_there_is_what_they_declare(first: Told) -> None:
    rows = first["rows"]

    def where(step: str, what: str) -> set[Any]:
        return {row[step][what] for row in rows}

    nodes = {step: where(step, "node") for step in FIRST}
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
    cluster: Cluster, root: GcsRoot, first: Told, tmp_path: Path
) -> None:
    # Another driver with another home: its step runs upon rows that are in the bucket alone.
    more = drive(cluster, root, [*FIRST, "ssd_again"], HOME=str(tmp_path))
    assert computed(more) == {"load": 0, **dict.fromkeys(FIRST, 0), "ssd_again": ROWS}
    assert [{**row, "ssd_again": None} for row in more["rows"]] == [
        {**row, "ssd_again": None} for row in first["rows"]
    ]
    for what in ("node", "home", "folder"):  # nothing of which is where the rows before were made
        assert len({row["plain"][what] for row in more["rows"]}) == 1
        assert more["rows"][0]["plain"][what] not in {row["ssd_again"][what] for row in more["rows"]}

    # A driver where there is no cluster at all finds everything.
    again = drive(cluster, root, [*FIRST, "ssd_again"], HOME=str(tmp_path), RAY_ADDRESS="127.0.0.1:1")
    assert again["rows"] == more["rows"]
    assert sum(computed(again).values()) == 0


@pytest.mark.slow
def test_a_driver_may_be_on_no_node(cluster: Cluster, gcs_root: GcsRoot) -> None:
    told = drive(cluster, gcs_root, ["plain", "ssd"], RAY_ADDRESS=cluster.client_address)
    assert {row["plain"]["node"] for row in told["rows"]} == {"plain"}
    assert computed(told) == {"load": ROWS, "plain": ROWS, "ssd": ROWS}


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
