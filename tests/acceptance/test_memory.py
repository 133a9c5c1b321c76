"""Ten times the object store goes through it, to a slow last step, and memory stays bounded.

The table in docs/performance.md is written by ::

    DISTILL_RAY_WRITE_TABLES=1 pytest -m slow tests/acceptance/test_memory.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import memory_run
from tests.acceptance.measured_table import write_table

DRIVER_MB = 200
ACTOR_MB = 700
"""Rows that were read and rows that are to be written, over the 100 MB that a process of Ray's takes."""


@pytest.fixture(scope="module")
def measured() -> Iterator[list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    yield lines
    if lines:
        write_table("acceptance/test_memory.py", lines, page="performance.md")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("rows", "store_mb"), [(10_000, 100), (100_000, 1_000)])
def test_ten_times_the_object_store_goes_through_it_to_a_slow_last_step(
    rows: int, store_mb: int, tmp_path: Path, measured: list[dict[str, Any]]
) -> None:
    arguments = json.dumps({"root": str(tmp_path / "root"), "rows": rows, "store_mb": store_mb})
    done = subprocess.run(
        [sys.executable, memory_run.__file__, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == rows
    assert found["right"], "each row is there, in its place"
    most = found["most_mb"]
    actor = max(megabytes for what, megabytes in most.items() if what.startswith("actor"))
    measured.append(
        {
            "rows, GB": f"{rows * memory_run.ROW_BYTES / 1e9:.0f}",
            "object store, MB": store_mb,
            "most of it used, MB": f"{most['object store']:.0f}",
            "spilled, MB": f"{found['spilled_mb']:.0f}",
            "driver, MB": f"{most['driver']:.0f}",
            "largest actor, MB": f"{actor:.0f}",
            "seconds": f"{found['seconds']:.0f}",
        }
    )
    assert most["object store"] < store_mb
    assert found["spilled_mb"] == 0
    assert most["driver"] < DRIVER_MB
    assert actor < ACTOR_MB
