"""The README's pipeline and the demo, with the real model, through Ray and then from the cache."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import Shell

pytestmark = pytest.mark.model

QUICKSTART = str(Path(__file__).parents[2] / "examples" / "quickstart.py")


def test_the_quickstart_computes_once_and_then_needs_no_ray(shell: Shell) -> None:
    first = shell.run(sys.executable, QUICKSTART)
    assert first.returncode == 0, first.stderr
    assert "'instruction': 'How much is 2+2?', 'generation': " in first.stdout
    assert "pipeline 'quickstart': complete, 0 rows reused, 4 computed" in first.stderr

    second = shell.run(sys.executable, "-X", "importtime", QUICKSTART)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "pipeline 'quickstart': complete hit, 1 rows reused, nothing computed" in second.stderr
    imported = {line.rpartition("|")[2].strip() for line in second.stderr.splitlines() if "|" in line}
    assert "pyarrow" in imported
    assert not {name for name in imported if name.partition(".")[0] in ("ray", "xllamacpp", "rich")}


def test_the_demos_second_run_computes_nothing_and_takes_under_two_seconds(shell: Shell) -> None:
    first = shell.distill_ray(
        "demo", "--json", "--param", "generation.llm.generation_kwargs.max_new_tokens=8"
    )
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    assert len(record["rows"]) == 6
    assert record["steps"]["generation/answer"]["rows_computed"] == 6
    assert record["steps"]["generation/answer"]["output_tokens"] > 6

    started = time.monotonic()
    second = shell.distill_ray("demo", "--param", "generation.llm.generation_kwargs.max_new_tokens=8")
    seconds = time.monotonic() - started
    assert second.returncode == 0, second.stderr
    assert "Q: How much is 2+2?\nA: " in second.stdout
    assert "Nothing was computed: every row came from the cache." in second.stdout
    assert seconds < 2
