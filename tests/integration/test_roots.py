"""Caches of several people: several roots, roots that are only read, salts, scopes, and names from users."""

from __future__ import annotations

import errno
import json
import os
import re
import types
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cache.exclusive import creates_exclusively
from distill_ray.cache.paths import FORMAT_VERSION
from distill_ray.cache.root_settings import set_salt
from distill_ray.cli.main import main
from distill_ray.errors import (
    CorruptObjectError,
    DistillRayError,
    FormatVersionError,
    ParameterError,
    StorageError,
)
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput, step
from distill_ray.storage import open_storage
from distill_ray.types import Row
from tests.damage import flip
from tests.gcs_server import GcsRoot


@step(inputs=["n"], outputs=["twice"])
def double(rows: StepInput) -> StepOutput:
    for row in rows:
        row["twice"] = 2 * row["n"]
    yield rows


def declare(cache_dir: Any, count: int = 100, name: str | None = "doubling", **options: Any) -> Pipeline:
    with Pipeline(name=name, cache_dir=cache_dir, **options) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(count)])
        load >> double(name="double", input_batch_size=10)
    return pipeline


def expected(count: int = 100) -> list[Row]:
    return [{"n": n, "twice": 2 * n} for n in range(count)]


def rows_of(distiset: Any) -> list[Row]:
    return list(distiset["default"]["train"].to_list())


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """All that is in a folder, and its state."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
    }


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A root that somebody else has computed into."""
    declare(tmp_path / "shared").run(engine="inline")
    return tmp_path / "shared"


# Several roots.


def test_what_another_root_holds_is_read_there_and_not_computed(shared: Path, own: Path) -> None:
    before = files(shared)
    distiset = declare([own, shared]).run(engine="inline")
    assert distiset.report.rows_computed == 0
    assert rows_of(distiset) == expected()
    assert files(shared) == before
    assert {path.name for path in own.iterdir()} == {"pipelines", "runs", "steps"}
    assert not list(own.rglob("*.parquet"))


def test_what_is_new_is_computed_into_the_first_root(shared: Path, own: Path, engine: Engine) -> None:
    before = files(shared)
    distiset = declare([own, shared], count=130).run(engine=engine)
    assert distiset.report.steps["double"].rows_computed == 30
    assert rows_of(distiset) == expected(130)
    assert files(shared) == before
    assert declare([own, shared], count=130).plan().complete
    assert not declare(shared, count=130).plan().complete


def test_without_the_other_root_its_rows_are_computed_again(shared: Path, own: Path) -> None:
    declare([own, shared], count=130).run(engine="inline")
    assert rows_of(declare(own, count=130).run(engine="inline")) == expected(130)


def test_a_bucket_may_stand_behind_a_disk(own: Path, gcs_root: GcsRoot) -> None:
    options = gcs_root.storage_options
    declare(gcs_root.url, storage_options=options).run(engine="inline")
    again = declare([own, gcs_root.url], storage_options=options).run(engine="inline")
    assert again.report.rows_computed == 0
    assert rows_of(again) == expected()


@pytest.mark.parametrize("of", ["*ouble-*/parts/*.parquet", "*ouble-*/outputs/*", "*/parts/*.parquet"])
def test_what_is_damaged_in_another_root_is_named_and_made_again_in_the_first(
    shared: Path, own: Path, of: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = list(shared.glob(f"steps/{of}"))
    for path in damaged:
        flip(path, 20)
    before, errors = files(shared), 0
    for _ in range(len(damaged) + 1):
        try:
            assert rows_of(declare([own, shared]).run(engine="inline")) == expected()
            break
        except DistillRayError as error:
            errors += 1
            assert "Run again" in str(error)  # noqa: PT017 - it need not be raised
    assert errors <= len(damaged)
    hidden = [path for path in own.rglob("*.parquet") if path.stat().st_size == 0]
    for path in hidden:
        assert any(text.startswith(f"{shared / path.relative_to(own)} ") for text in caplog.messages)
    assert len(hidden) == len([path for path in damaged if path.suffix == ".parquet"])
    assert declare([own, shared]).plan().complete
    assert rows_of(declare([own, shared]).run(engine="inline")) == expected()
    assert files(shared) == before


SCRIPT = """\
from distill_ray.pipeline import Pipeline
from distill_ray.steps import KeepColumns, LoadDataFromDicts

with Pipeline(name="keep") as pipeline:
    LoadDataFromDicts(data=[{"n": 1}]) >> KeepColumns(columns=["n"])
"""


@pytest.mark.parametrize("cache_dir", [[], [""], ["", "x"], 3, [3]])
def test_no_root_at_all_is_an_error(cache_dir: Any) -> None:
    with pytest.raises(ParameterError, match="`cache_dir` must be a path or URL, or a list of these"):
        declare(cache_dir).plan()


def test_the_command_line_takes_several_roots(
    shared: Path, own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    computed = []
    for number, roots in enumerate(
        (
            ["--cache-dir", str(shared)],
            ["--cache-dir", str(own), "--cache-dir", str(shared)],
            ["--cache-dir", str(own)],
        )
    ):
        script = tmp_path / f"roots_script_{number}.py"  # a module is imported once in a process
        script.write_text(SCRIPT)
        assert main(["run", str(script), "--engine", "inline", "--json", *roots]) == 0
        report = json.loads(capfd.readouterr().out)
        computed.append(sum(each["rows_computed"] for each in report["steps"].values()))
    assert computed == [2, 0, 2]


# Roots that are only read.


def test_a_complete_output_is_read_from_a_read_only_root_and_nothing_is_written(
    shared: Path, engine: Engine
) -> None:
    before = files(shared)
    distiset = declare(shared, cache_read_only=True).run(engine=engine)
    assert rows_of(distiset) == expected()
    assert distiset.report.status == "complete"
    assert distiset.report.steps["double"].decision == "hit"
    assert files(shared) == before


def test_what_would_have_to_be_computed_is_an_error_that_names_the_steps(shared: Path) -> None:
    before = files(shared)
    refused = pytest.raises(StorageError, match=r"opened for reading only .*would have to run:")
    with refused as error:
        declare(shared, count=130, cache_read_only=True).run(engine="inline")
    assert "'load': " in str(error.value)
    assert "'double': " in str(error.value)
    assert f"cache_dir=['my-cache', '{shared}']" in str(error.value)
    with refused:
        declare(shared, cache_read_only=True).run(use_cache=False, engine="inline")
    assert files(shared) == before


def test_a_read_only_root_that_is_not_there_is_not_made(own: Path) -> None:
    with pytest.raises(StorageError, match="would have to run"):
        declare(own, cache_read_only=True).run(engine="inline")
    assert not own.exists()


def test_a_damaged_part_of_a_read_only_root_is_an_error_and_stays(shared: Path) -> None:
    (part,) = shared.glob("steps/*ouble-*/parts/*.parquet")
    flip(part, 20)
    before = files(shared)
    distiset = declare(shared, cache_read_only=True).run(engine="inline")
    with pytest.raises(CorruptObjectError, match=r"could not be removed .*opened for reading only"):
        rows_of(distiset)
    assert files(shared) == before


def test_a_dry_run_of_a_read_only_pipeline_computes_elsewhere(shared: Path) -> None:
    before = files(shared)
    assert rows_of(declare(shared, 130, cache_read_only=True).dry_run(engine="inline")) == expected(1)
    assert rows_of(declare(shared, name=None, cache_scope="pipeline").dry_run(engine="inline"))
    assert files(shared) == before


def test_a_root_that_cannot_be_written_to_is_read_with_a_warning(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_records(shared)
    distiset = declare(shared).run(engine="inline")
    assert rows_of(distiset) == expected()
    assert distiset.report.status == "complete"
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "The record of run" in warning.getMessage()
    assert re.search(f"Cannot (read|write) {shared}/", warning.getMessage())


def test_records_that_cannot_be_written_do_not_hide_what_went_wrong(shared: Path) -> None:
    (shared / "format.json").unlink()
    (shared / "format.json").mkdir()
    refuse_records(shared)
    with pytest.raises(StorageError, match=r"Cannot (read|write) .*format.json"):
        declare(shared, count=130).run(engine="inline")


def refuse_records(root: Path) -> None:
    """Let writing fail, for a superuser too."""
    for name in ("runs", "pipelines"):
        (root / name).rename(root / f"{name}-before")
        (root / name).write_text("no folder")
    for note in root.glob("steps/*/parts/_used.*"):  # where one stands, nothing is written anyway
        note.unlink()


# Salts and formats.


def test_a_salt_disowns_all_that_was_stored_and_its_return_brings_it_back(shared: Path) -> None:
    storage = open_storage(str(shared))
    computed = []
    for salt in ("bad driver of May", "", "bad driver of May", "another"):
        set_salt(storage, salt)
        distiset = declare(shared).run(engine="inline")
        assert rows_of(distiset) == expected()
        computed.append(distiset.report.rows_computed)
    assert computed == [200, 0, 0, 200]


def test_each_root_has_a_salt_of_its_own(shared: Path, own: Path) -> None:
    declare(own, count=10).run(engine="inline")
    set_salt(open_storage(str(own)), "x")
    assert declare([own, shared]).run(engine="inline").report.rows_computed == 0
    set_salt(open_storage(str(shared)), "y")
    assert not declare([own, shared]).plan().complete


@pytest.mark.parametrize("version", [1, FORMAT_VERSION + 1])
def test_a_root_of_another_format_is_refused_wherever_it_stands(
    shared: Path, own: Path, version: int
) -> None:
    (shared / "format.json").write_text(json.dumps({"format": version}))
    refused = f"{shared} has format {version}; this distill_ray"
    for roots in (shared, [own, shared], [shared, own]):
        with pytest.raises(FormatVersionError, match=refused):
            declare(roots).plan()
        with pytest.raises(FormatVersionError, match=refused):
            declare(roots).run(engine="inline")
    assert not own.exists()


# Scopes.


def test_a_pipeline_may_keep_its_outputs_to_itself(shared: Path) -> None:
    before = files(shared)
    first = declare(shared, name="a", cache_scope="pipeline").run(engine="inline")
    assert first.report.rows_computed == 200
    assert rows_of(first) == expected()
    assert declare(shared, name="a", cache_scope="pipeline").plan().complete
    for name in ("A", "b", "../a"):
        assert not declare(shared, name=name, cache_scope="pipeline").plan().complete
    after = files(shared)
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"scopes"}
    assert {name: after[name] for name in before} == before


def test_a_root_begun_by_such_a_pipeline_is_claimed_for_all(own: Path) -> None:
    declare(own, name="a", cache_scope="pipeline").run(engine="inline")
    assert json.loads((own / "format.json").read_text()) == {"format": FORMAT_VERSION}
    assert {path.name for path in own.iterdir()} == {"format.json", "scopes"}


def test_a_scope_is_one_in_all_roots_and_under_a_salt(shared: Path, own: Path) -> None:
    set_salt(open_storage(str(shared)), "s")
    declare(shared, name="a", cache_scope="pipeline").run(engine="inline")
    assert declare([own, shared], name="a", cache_scope="pipeline").plan().complete
    set_salt(open_storage(str(shared)), "t")
    assert not declare([own, shared], name="a", cache_scope="pipeline").plan().complete


def test_a_pipeline_that_keeps_to_itself_needs_a_name(own: Path) -> None:
    with pytest.raises(ParameterError, match=r"needs a name .*Pipeline\(name=\.\.\.\)"):
        declare(own, name=None, cache_scope="pipeline").plan()


def test_another_scope_is_an_error(own: Path) -> None:
    with pytest.raises(ParameterError, match="no cache_scope 'team': choose 'shared' or 'pipeline'"):
        declare(own, cache_scope="team").plan()


# Stores without create-if-absent.


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has no hard links."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def test_a_disk_without_hard_links_is_a_cache_as_any_other(without_links: None, own: Path) -> None:
    assert rows_of(declare(own).run(engine="inline")) == expected()
    set_salt(open_storage(str(own)), "s")
    assert rows_of(declare(own).run(engine="inline")) == expected()
    assert rows_of(declare(own, 120).run(engine="inline")) == expected(120)
    assert declare(own, 120).plan().complete
    assert not creates_exclusively(open_storage(str(own)))


# Names from users.

HOSTILE = (
    "../../../../escape",
    "/escape",
    "..",
    ".",
    "~",
    "a/b\\c",
    "\x00\n\r\t\x1b[2J",
    "x" * 5000,
    "名前\u202e\u0301",
    "C:\\escape",
    "con",
    "A b",
    "a b",
    "a_b",
)


@pytest.mark.parametrize("scope", ["shared", "pipeline"])
def test_no_name_leaves_the_root(tmp_path: Path, scope: Any) -> None:
    root = tmp_path / "deep" / "er" / "root"
    for name in HOSTILE:
        with Pipeline(name=name, cache_dir=root, cache_scope=scope) as pipeline:
            load = LoadDataFromDicts(name=step_name(name), data=[{"n": 1}])
            load >> evil_class(name)(name=step_name(f"{name}2"))
        distiset = pipeline.run(engine="inline")
        assert rows_of(distiset) == [{"n": 1, "name": class_name(name)}]
        assert pipeline.plan().complete
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(root)}
    assert outside == {tmp_path / "deep", tmp_path / "deep" / "er"}
    known = {"format.json", "steps", "pipelines", "runs", "scopes", "leases", "probes"}
    assert {path.name for path in root.iterdir()} <= known
    assert all(path.name.isascii() and path.name.isprintable() for path in root.rglob("*"))


def test_a_name_that_no_text_can_hold_is_refused(own: Path) -> None:
    for name in ("\ud800", "a\udfff"):
        with pytest.raises(ParameterError, match=r"name of a pipeline .*surrogates not allowed"):
            Pipeline(name=name)
        with pytest.raises(ParameterError, match="'name'"):
            LoadDataFromDicts(name=name, data=[{"n": 1}])


def step_name(name: str) -> str:
    """The name, as far as a step may have it: others are refused."""
    return "".join(filter(str.isprintable, name))[-200:] or "step"


def class_name(name: str) -> str:
    """The name, as far as Python lets a class have it."""
    return name.replace("\0", "")


def evil_class(name: str) -> type[Step]:
    """A step whose class has this name."""

    def process(self: Step, inputs: StepInput) -> StepOutput:
        yield [{**row, "name": type(self).__name__} for row in inputs]

    members = {
        "process": process,
        "version": "1",
        "inputs": property(lambda self: ["n"]),
        "outputs": property(lambda self: ["name"]),
        "__module__": __name__,
    }
    return types.new_class(class_name(name), (Step,), exec_body=lambda body: body.update(members))
