"""A run shows that it lives while something runs, and leaves nothing behind that others would wait for."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_ray.cache import paths
from distill_ray.cache.heartbeat import Beat, read_heartbeat
from distill_ray.errors import StepError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput
from distill_ray.storage import LocalStorage, Storage, open_storage
from distill_ray.types import StepOutput
from tests.cache.test_exclusive import Careless


class Look(Step):
    """Keeps what it finds in the root while it runs."""

    root: str
    fails: bool = False
    version = "1"

    @property
    def inputs(self) -> list[str]:
        return ["number"]

    @property
    def outputs(self) -> list[str]:
        return ["leases", "beat"]

    def process(self, rows: StepInput) -> StepOutput:
        if self.fails:
            raise ValueError("no")
        storage = open_storage(self.root)
        for row in rows:
            row["leases"] = sorted(storage.sizes(paths.LEASES_FOLDER))
            row["beat"] = beats(storage)[-1].model_dump(mode="json")
        yield rows


def beats(storage: Storage) -> list[Beat]:
    found = (read_heartbeat(storage, run) for run in sorted(storage.folders("runs")))
    read = (Beat.from_json(content) for content in found if content is not None)
    return [beat for beat in read if beat is not None]


def looking(root: str, *, fails: bool = False) -> Pipeline:
    with Pipeline("looking", cache_dir=root) as pipeline:
        LoadDataFromDicts(name="load", data=[{"number": 1}]) >> Look(name="look", root=root, fails=fails)
    return pipeline


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


def test_while_it_runs_it_holds_leases_and_its_heart_beats(root: str) -> None:
    distiset = looking(root).run(engine="inline", progress="none")
    (row,) = distiset["default"]["train"]
    report = distiset.report
    assert f"{report.steps['look'].output_key}.1" in row["leases"]
    assert row["beat"]["status"] == "running"
    assert (row["beat"]["run"], row["beat"]["pipeline"]) == (report.run, "looking")
    assert set(row["beat"]["outputs"]) == {step.output_key for step in report.steps.values()}


def test_afterwards_its_leases_are_gone_and_its_heartbeat_has_ended(root: str) -> None:
    looking(root).run(engine="inline", progress="none")
    storage = LocalStorage(root)
    assert storage.sizes(paths.LEASES_FOLDER) == {}
    (beat,) = beats(storage)
    assert beat.status == "ended"
    assert beat.steps == {"load": 1, "look": 1}


def test_a_run_that_failed_has_ended_and_nobody_waits_for_it(root: str) -> None:
    with pytest.raises(StepError, match="no"):
        looking(root, fails=True).run(engine="inline", progress="none")
    assert [beat.status for beat in beats(LocalStorage(root))] == ["ended"]
    distiset = looking(root).run(engine="inline", progress="none", on_busy="fail")
    assert distiset.report.status == "complete"


def test_a_complete_hit_shows_no_heartbeat(root: str) -> None:
    looking(root).run(engine="inline", progress="none")
    report = looking(root).run(engine="inline", progress="none").report
    assert report.rows_computed == 0
    assert report.run not in [beat.run for beat in beats(LocalStorage(root))]


def test_where_leases_cannot_be_had_it_computes_and_says_so(tmp_path: Path) -> None:
    root = f"{Careless.protocol}://{tmp_path}"
    report = looking(root).run(engine="inline", progress="none").report
    assert report.status == "complete"
    assert "cannot create an object only where there is none" in report.unguarded
    assert open_storage(root).sizes(paths.LEASES_FOLDER) == {}


def test_where_they_can_nothing_is_said(root: str) -> None:
    assert looking(root).run(engine="inline", progress="none").report.unguarded == ""
