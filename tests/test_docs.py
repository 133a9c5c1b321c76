"""What the pages and docstrings show is true: code runs, links lead somewhere, command lines exist."""

from __future__ import annotations

import doctest
import re
import runpy
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click
import pytest

from distill_ray import models, steps
from distill_ray.cli.main import cli
from distill_ray.steps import tasks

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "cluster_configs/README.md")
]
PAGES += (ROOT / "docs").rglob("*.md")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every ``distill-ray ...`` of a shell block or between backticks: where it stands, and its arguments."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shell = [block.text for block in blocks() if block.page == page and block.language == "sh"]
        inline = re.findall(r"`(distill-ray [^`]+)`", text)
        for line in [*"\n".join(shell).replace("\\\n", " ").splitlines(), *inline]:
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                if words[:1] == ["distill-ray"]:
                    yield f"{page.name}: {command.strip()}", words[1:]


PYTHON = [block for block in blocks() if block.language == "python"]
COMMANDS = dict(command_lines())


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_runs_as_a_script_of_its_own(
    block: Block, local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(block.text)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")


def test_the_quickstart_of_the_readme_is_the_example() -> None:
    quickstart = (ROOT / "examples" / "quickstart.py").read_text()
    assert quickstart in [block.text for block in PYTHON if block.page.name == "README.md"]


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=list(COMMANDS))
def test_a_command_line_is_one_that_the_command_takes(arguments: list[str]) -> None:
    name, *rest = arguments
    command = cli.commands.get(name)
    with suppress(click.exceptions.Exit):  # of --help
        if command is None:
            cli.make_context("distill-ray", arguments)
        else:
            command.make_context(name, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_relative_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_path_that_is_named_exists(page: Path) -> None:
    shell = "".join(block.text for block in blocks() if block.page == page and block.language == "sh")
    named = re.findall(r"(?<![\w/])(?:distill_ray|tests|tools|docs|examples|benchmarks)/[\w./-]*", shell)
    named += re.findall(
        r"`((?:distill_ray|tests|tools|docs|examples|benchmarks)/[\w./-]*)`", page.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_what_distilabels_names_become_is_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `distilabel[\w.]*` \| `([\w.]+)`: (.*) \|$", readme, re.MULTILINE)
    assert len(rows) == 7
    for door, names in rows:
        missing = set(re.findall(r"`(\w+)`", names)) - set(dir(import_module(door)))
        assert not missing, door


def test_the_readme_lists_the_exit_codes_that_the_help_does() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    codes = re.findall(r"^ *(\d+) {2,}\w", cli.help or "", re.MULTILINE)
    assert len(codes) > 5
    assert re.findall(r"^\| (\d+) \|", readme, re.MULTILINE) == codes


def test_the_import_layers_of_the_map_are_those_that_are_held() -> None:
    (shown,) = [b.text for b in blocks() if b.page.name == "CONTRIBUTING.md" and b.language == "text"]
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\nlayers = [")[2]
    assert shown.split("\n")[:-1] == re.findall(r'^  "(.*)",$', settings, re.MULTILINE)


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "distill_ray").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_give_what_they_say(module: str) -> None:
    doors = {name: getattr(door, name) for door in (steps, tasks, models) for name in door.__all__}
    failed, tried = doctest.testmod(import_module(module), extraglobs=doors)
    assert tried > 0
    assert failed == 0
