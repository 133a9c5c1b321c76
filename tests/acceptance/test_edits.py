"""After an edit to a pipeline just what must be computed is computed, and the rows are those of a cold run.

Each edit is made to a user's project in a folder of its own, which is run by a new process on a copy of the
cache that the unedited project left; edits of the script alone share processes. What was measured is the
table of docs/cache.md: where it is not the one that stands there a test fails, and this writes it anew::

    DISTILL_RAY_WRITE_TABLES=1 pytest tests/acceptance/test_edits.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from tests.acceptance.edits import EDITS, EVERYTHING, PROJECT, SCRIPT, SECTIONS, WORK, Edit, Files

MEASURE = Path(__file__).with_name("measure_edits.py")
PAGE = Path(__file__).parents[2] / "docs" / "cache.md"
BEGIN, END = "<!-- measured by tests/acceptance/test_edits.py -->\n", "<!-- until here -->\n"

pytestmark = pytest.mark.timeout(600)

EDITS_AT_ONCE = 8
"""Edits of the script alone that share a process: what they import is the same."""


def groups_of(edits: Sequence[Edit]) -> Iterator[tuple[Edit, ...]]:
    """Edits that share a process."""
    yield from ((edit,) for edit in edits if not edit.is_of_the_script)
    of_script = tuple(edit for edit in edits if edit.is_of_the_script)
    for start in range(0, len(of_script), EDITS_AT_ONCE):
        yield of_script[start : start + EDITS_AT_ONCE]


GROUPS = tuple(groups_of(EDITS))


@dataclass(frozen=True)
class Measured:
    """What a run after an edit did: see `measure_edits`."""

    work: Mapping[str, int]
    wrong_rows: int
    digest: str


class Laboratory:
    """A folder with the cache that the project left, where each edit is made and measured."""

    def __init__(self, folder: Path, engine: str, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.engine = engine
        self.environment = {**os.environ, **environment}
        self.pool = ThreadPoolExecutor(max_workers=2)
        self._begun: dict[int, Future[list[Measured]]] = {}

    @cached_property
    def before(self) -> Measured:
        """The run that makes the cache which every edit starts from."""
        (script,) = self._written("before", [PROJECT])
        (measured,) = self._run([script])
        return measured

    def measured(self, edit: Edit) -> Measured:
        """What a run after the edit did. The next edits are begun meanwhile."""
        assert self.before.wrong_rows == 0
        number = next(number for number, group in enumerate(GROUPS) if edit in group)
        for each in range(number, min(number + 3, len(GROUPS))):
            if each not in self._begun:
                self._begun[each] = self.pool.submit(self._measure, each)
        return self._begun[number].result()[GROUPS[number].index(edit)]

    def _measure(self, number: int) -> list[Measured]:
        scripts = self._written(f"edits-{number}", [edit.files() for edit in GROUPS[number]])
        for script in scripts:
            shutil.copytree(f"{self.folder}/before/script_0.py.cache", f"{script}.cache")
        return self._run(scripts)

    def _written(self, name: str, versions: Sequence[Files]) -> list[Path]:
        """Write a project whose script is there in several versions."""
        scripts = {f"script_{number}.py": files[SCRIPT] for number, files in enumerate(versions)}
        shared = {path: text for path, text in versions[0].items() if path != SCRIPT}
        for path, text in {**shared, **scripts}.items():
            (self.folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name / path).write_text(text, encoding="utf-8")
        return [self.folder / name / script for script in scripts]

    def _run(self, scripts: Sequence[Path]) -> list[Measured]:
        command = [sys.executable, str(MEASURE), self.engine, *map(str, scripts)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        return [Measured(**each) for each in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    made = Laboratory(tmp_path_factory.mktemp("edits"), "inline", {})
    yield made
    made.pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def laboratory_on_ray(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Iterator[Laboratory]:
    import ray

    environment = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    made = Laboratory(tmp_path_factory.mktemp("edits"), "ray", environment)
    yield made
    made.pool.shutdown(cancel_futures=True)


def check(edit: Edit, measured: Measured, before: Measured) -> None:
    assert measured.work == edit.work, "more is needless, less is something else's rows"
    assert measured.wrong_rows == 0
    assert (measured.digest == before.digest) == edit.same_rows, "an edit that changes rows can go wrong"


by_name = pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)


def test_without_a_cache_all_is_computed(laboratory: Laboratory) -> None:
    assert laboratory.before.work == EVERYTHING


@by_name
def test_an_edit_has_what_it_concerns_computed(edit: Edit, laboratory: Laboratory) -> None:
    check(edit, laboratory.measured(edit), laboratory.before)


@pytest.mark.slow
@by_name
def test_an_edit_has_the_same_computed_on_ray(edit: Edit, laboratory_on_ray: Laboratory) -> None:
    check(edit, laboratory_on_ray.measured(edit), laboratory_on_ray.before)


def test_the_page_shows_what_was_measured(laboratory: Laboratory) -> None:
    table = "\n".join(table_of({edit.name: laboratory.measured(edit) for edit in EDITS})) + "\n"
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    shown, after = rest.split(END)
    if os.environ.get("DISTILL_RAY_WRITE_TABLES"):
        PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")
    else:
        assert shown == table, "DISTILL_RAY_WRITE_TABLES=1 writes it anew"


def table_of(measured: Mapping[str, Measured]) -> Iterator[str]:
    """The table's lines: a row for each edit, a column for each kind of work."""
    heads = ["LLM calls" if work == "llm" else work for work in WORK]
    yield f"| edit | what must be computed, and why | {' | '.join(heads)} | wrong rows |"
    yield f"| --- | --- |{' ---: |' * (len(WORK) + 1)}"
    for section, edits in SECTIONS.items():
        yield f"| **{section}** |{' |' * (len(WORK) + 2)}"
        for edit in edits:
            found = measured[edit.name]
            counts = [f"{found.work[work]:,}" if work in found.work else "" for work in WORK]
            yield f"| {edit.name} | {edit.why} | {' | '.join(counts)} | {found.wrong_rows} |"
