"""Records are advisory: what cannot be read is as if it were not there."""

from __future__ import annotations

import pytest

from distill_ray.cache.paths import FunctionId, finished_record, latest_record, run_output
from distill_ray.cache.records import (
    FunctionRecord,
    LastRuns,
    RunRecord,
    StepRecord,
    has_run_output,
    read_function_record,
    read_last_runs,
)
from distill_ray.cache.store import CacheStore

FUNCTION = FunctionId("Ask", "f" * 64)
RUN = RunRecord("answers", "run-1", {"ask": StepRecord(FUNCTION, "k" * 64, ("load",))})


def test_the_steps_of_the_last_runs_come_back(store: CacheStore) -> None:
    assert read_last_runs(store.storage, "answers") == LastRuns()
    store.write_record(latest_record("answers"), RUN.to_json())
    assert read_last_runs(store.storage, "answers") == LastRuns(latest=RUN)
    store.write_record(finished_record("answers"), RUN.to_json())
    assert read_last_runs(store.storage, "answers") == LastRuns(RUN, RUN)


def test_what_a_function_was_made_from_comes_back(store: CacheStore) -> None:
    assert read_function_record(store.storage, FUNCTION) is None
    store.write_preimage(FUNCTION, {"$step": {"a": 1}}, {"helper": "def helper ( ) : pass"})
    found = read_function_record(store.storage, FUNCTION)
    assert found == FunctionRecord({"$step": {"a": 1}}, {"helper": "def helper ( ) : pass"})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"{}", b'{"steps": []}', b'{"steps": {"a": {}}}'])
def test_a_record_that_cannot_be_read_is_none(store: CacheStore, data: bytes) -> None:
    store.storage.publish(latest_record("answers"), data)
    store.storage.publish(FUNCTION.signature_file, data)
    assert read_last_runs(store.storage, "answers") == LastRuns()
    assert read_function_record(store.storage, FUNCTION) is None


def test_an_output_that_a_run_kept_to_itself_is_known(store: CacheStore) -> None:
    assert not has_run_output(store.storage, "run-1", "k")
    store.storage.publish(run_output("run-1", "k"), b"{}")
    assert has_run_output(store.storage, "run-1", "k")
