"""A user's project: a script that is edited between commands, and what these say as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cli.main import main


class Project:
    """A script in a folder."""

    def __init__(self, folder: Path, text: str, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.text = text
        self.capture = capture
        self.versions = 0

    def edit(self, old: str, new: str) -> None:
        assert old in self.text
        self.text = self.text.replace(old, new)

    def script(self) -> str:
        """Write the script as it is now, to be read as by a new process."""
        self.versions += 1
        path = self.folder / str(self.versions) / "cli_script.py"
        path.parent.mkdir()
        path.write_text(self.text)
        sys.modules.pop("cli_script", None)
        return str(path)

    def command(self, *arguments: str, code: int = 0) -> Any:
        """Run a command on the script; returns its JSON."""
        path = self.script()
        placed = [path if argument == "SCRIPT" else argument for argument in arguments]
        self.capture.readouterr()
        assert main([*placed, "--json"]) == code, self.capture.readouterr().err
        return json.loads(self.capture.readouterr().out)

    def run(self, *options: str, code: int = 0) -> Any:
        return self.command("run", "SCRIPT", "--engine", "inline", *options, code=code)

    def plan(self, *options: str) -> dict[str, str]:
        """What would become of each step."""
        steps = self.command("plan", "SCRIPT", *options)["steps"]
        return {name: step["decision"] for name, step in steps.items()}
