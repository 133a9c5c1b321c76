"""What ``distill-ray run`` can be told of the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_ray.cli.main import main
from tests.cli.conftest import PIPELINE
from tests.cli.project import Project


@pytest.fixture
def project(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path, PIPELINE, capfd)


def test_a_cache_that_is_only_read_gives_what_it_holds_and_refuses_to_compute(project: Project) -> None:
    error = project.run("--read-only", code=3)
    assert "opened for reading only" in error["message"]
    project.run()
    assert project.run("--read-only")["steps"]["double"]["decision"] == "hit"


def test_a_scope_of_its_own_neither_finds_nor_shows_outputs(project: Project) -> None:
    project.run()
    assert project.run("--cache-scope", "pipeline")["steps"]["double"]["decision"] == "compute"
    assert project.run("--cache-scope", "pipeline")["steps"]["double"]["decision"] == "hit"


def test_a_share_of_the_reused_rows_is_computed_again_to_compare(project: Project) -> None:
    project.run()
    step = project.run("--verify", "1")["steps"]["double"]
    assert (step["rows_checked"], step["rows_differing"]) == (20, 0)


def test_a_share_above_all_is_refused(project: Project) -> None:
    assert main(["run", project.script(), "--verify", "1.5"]) == 2
    assert "--verify" in project.capture.readouterr().err


def test_stages_are_given_as_json_or_by_name(project: Project) -> None:
    error = project.run("--load-groups", '[["double", "triple"]]', code=2)
    assert "names step 'triple', but the steps are" in error["message"]
    error = project.run("--load-groups", "one_by_one", code=2)
    assert "'sequential_step_execution', not 'one_by_one'" in error["message"]
    project.run("--load-groups", '[["double"]]')
    again = project.run("--load-groups", "sequential_step_execution")
    assert again["steps"]["double"]["decision"] == "hit", "stages are no part of what a step computes"


def test_a_profile_is_written_where_it_is_wanted(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    project.run("--profile", "run.json")
    run = project.run("--no-cache", "--profile")["run"]
    assert Path(f"trace-{run}.json").exists()
    names = [each["name"] for each in json.loads(Path("run.json").read_bytes())]
    assert names.count("compute") >= 2


def test_a_script_is_not_taken_for_the_file_of_the_profile(project: Project) -> None:
    script = project.script()
    for arguments in ([script], [script, script]):
        assert main(["run", "--profile", *arguments]) == 2
        said = " ".join(project.capture.readouterr().err.split())
        assert "ends with .json" in said
        assert "Without a file, say --profile after SCRIPT" in said
    assert "Pipeline" in Path(script).read_text()
