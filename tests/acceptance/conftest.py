"""The commands as a user types them: processes of their own, with a Ray of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

DISTILL_RAY = str(Path(sys.executable).with_name("distill-ray"))

TIMEOUT = 100


@dataclass(frozen=True)
class Shell:
    """Runs commands in a folder, with a cache root of the test's own and progress as lines."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start, for the test to interrupt."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def distill_ray(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.run(DISTILL_RAY, *arguments, cwd=cwd)


@pytest.fixture
def shell(tmp_path: Path, cache_root: Path) -> Shell:
    changes = {"DISTILL_RAY_CACHE_DIR": str(cache_root), "DISTILL_RAY_PROGRESS": "plain"}
    return Shell(tmp_path, {**os.environ, **changes})


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"it did not happen within {seconds} s"
        time.sleep(0.05)
