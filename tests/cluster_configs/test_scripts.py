"""The scripts are sound Bash, can be run, and say what they want when they are called without it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster_configs.configs import CONFIGS, run_checker

SCRIPTS = sorted([*CONFIGS.rglob("*.sh"), *CONFIGS.rglob("*.sbatch")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_sound(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert run_checker("shellcheck", "--shell=bash", str(script)) == ""
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_that_is_not_told_what_to_do_says_how_to(script: Path) -> None:
    called = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    assert called.returncode == 2
    assert script.name in called.stderr
