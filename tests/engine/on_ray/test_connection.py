"""Which cluster a run joins, and what it says where there is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import DISTILL_RAY
from tests.clusters import free_ports

SCRIPT = """\
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts

with Pipeline(name="joining") as pipeline:
    LoadDataFromDicts(name="load", data=[{"n": 1}])
"""


@pytest.fixture
def dead_address() -> str:
    (port,) = free_ports(1)
    return f"127.0.0.1:{port}"


def run(folder: Path, address: str) -> tuple[int, str]:
    (folder / "joining_script.py").write_text(SCRIPT)
    ran = subprocess.run(
        [DISTILL_RAY, "run", "joining_script.py"],
        cwd=folder,
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=60,  # Ray itself would try for minutes
        check=False,
    )
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path: Path, dead_address: str, scheme: str) -> None:
    code, told = run(tmp_path, scheme + dead_address)
    assert code == 4, told
    assert f"No Ray cluster answers at {scheme}{dead_address}" in told


def test_the_address_of_a_dashboard_is_told_from_that_of_a_cluster(tmp_path: Path) -> None:
    code, told = run(tmp_path, "http://127.0.0.1:8265")
    assert code == 4, told
    assert "is the address of a cluster's dashboard, which takes jobs (`distill-ray submit`)" in told
