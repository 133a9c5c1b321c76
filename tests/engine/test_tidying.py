"""A storage that removes nothing costs no run."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from distill_ray.errors import StorageError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from distill_ray.storage.local import LocalStorage


class Same(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


@pytest.mark.parametrize(
    ("kept", "what"), [("leases/", "lease of an output"), ("/parts/", "Parts that were merged")]
)
def test_a_run_is_complete_where_nothing_can_be_removed(
    kept: str, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remove = LocalStorage.delete

    def refuse(self: LocalStorage, paths: Iterable[str]) -> None:
        wanted = list(paths)
        if any(kept in path for path in wanted):
            raise StorageError("the bucket's rules forbid it")
        remove(self, wanted)

    monkeypatch.setattr(LocalStorage, "delete", refuse)
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0")
    rows = [{"n": n} for n in range(20)]
    with Pipeline(name="kept") as pipeline:
        LoadDataFromDicts(data=rows) >> Same(input_batch_size=2)
    assert pipeline.run(engine="inline")["default"]["train"].to_list() == rows
    assert what in caplog.text
    assert "the bucket's rules forbid it" in caplog.text
    assert pipeline.plan().complete
