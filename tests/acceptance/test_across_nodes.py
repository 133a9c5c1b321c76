"""A replica whose GPUs are on several nodes: it holds a placement group, for as long as it lives."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.clusters import ROOT, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = str(ROOT / "tests" / "acceptance" / "spread_pipeline.py")


def test_it_has_a_gpu_in_each_bundle_and_its_successor_has_a_group_of_its_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    done = cluster.run(sys.executable, SCRIPT, str(tmp_path), "3", timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [row["n"] for row in told["rows"]] == list(range(20))
    for row in told["rows"]:
        assert row["told"] == "3"
        assert sorted(row["places"]) == [["gpus", "0"], ["gpus", "1"], ["ssd", "0"]]
    assert len({row["group"] for row in told["rows"]}) == 2
    assert {row["group"] for row in told["rows"]} == set(told["states"])
    assert set(told["states"].values()) == {"REMOVED"}
    assert told["free"] == 3


def test_more_than_all_nodes_have_together_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.run(sys.executable, SCRIPT, str(tmp_path), "4", timeout=300)
    assert "declares CPU 0.5, GPU 4 for each replica, which the nodes do not have together" in done.stderr
