"""Signatures are the same in every process, on every Python, and from release to release.

A digest that changes here empties every cache there is. If that is meant, raise `FORMAT` and run
``PYTHONPATH=. python tests/signature/golden/print_digests.py > tests/signature/golden/digests.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")


def interpreters() -> dict[str, str]:
    """This Python, and one of each other version that the machine has."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for version in VERSIONS:
        installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        on_path = shutil.which(f"python{version}")
        for candidate in [*map(str, installed), *([on_path] if on_path else [])]:
            if version not in found and _runs(candidate):
                found[version] = candidate
    return found


def _runs(interpreter: str) -> bool:
    return subprocess.run([interpreter, "-c", ""], check=False, capture_output=True).returncode == 0


INTERPRETERS = interpreters()


def printed_by(interpreter: str, folder: Path = GOLDEN, **environment: str) -> str:
    return subprocess.run(
        [interpreter, "-B", str(folder / "print_digests.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.parametrize("version", INTERPRETERS)
def test_every_python_gives_the_pinned_digests_descriptions_and_sources(version: str) -> None:
    assert json.loads(printed_by(INTERPRETERS[version])) == json.loads((GOLDEN / "digests.json").read_text())


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_the_hash_seed_changes_nothing(seed: str) -> None:
    printed = printed_by(sys.executable, PYTHONHASHSEED=seed)
    assert json.loads(printed) == json.loads((GOLDEN / "digests.json").read_text())


def test_optimised_bytecode_changes_nothing() -> None:
    printed = printed_by(sys.executable, PYTHONOPTIMIZE="2")
    assert json.loads(printed) == json.loads((GOLDEN / "digests.json").read_text())


def test_another_folder_and_another_line_ending_change_nothing(tmp_path: Path) -> None:
    for file in GOLDEN.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert json.loads(printed_by(sys.executable, tmp_path)) == json.loads(
        (GOLDEN / "digests.json").read_text()
    )
