"""A pipeline whose files and cache are in a store of each kind."""

from __future__ import annotations

import pytest

from distill_ray.errors import ParameterError
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts, LoadDataFromFileSystem, StepInput, StepOutput, step
from distill_ray.storage import open_url
from tests.azure_server import AzureRoot
from tests.s3_server import S3Root


@step(inputs=["n"], outputs=["twice"])
def double(inputs: StepInput) -> StepOutput:
    yield [{**row, "twice": 2 * row["n"]} for row in inputs]


@pytest.mark.parametrize(
    ("store", "engine"),
    [("s3_root", "inline"), pytest.param("s3_root", "ray", marks=pytest.mark.slow), ("azure_root", "inline")],
)
def test_rows_and_cache_may_be_in_a_bucket(
    store: str, engine: Engine, request: pytest.FixtureRequest
) -> None:
    root: S3Root | AzureRoot = request.getfixturevalue(store)
    if engine == "ray":
        request.getfixturevalue("local_ray")
    rows, options = f"{root.url}/rows.jsonl", root.storage_options
    with open_url(rows, "wt", options) as file:
        file.write('{"n": 1}\n{"n": 2}\n')
    with Pipeline(name="doubling", cache_dir=f"{root.url}/cache", storage_options=options) as pipeline:
        load = LoadDataFromFileSystem(data_files=rows, filetype="jsonl", storage_options=options)
        load >> double(name="double")
    distiset = pipeline.run(engine=engine)
    assert distiset["default"]["train"].to_list() == [{"n": 1, "twice": 2}, {"n": 2, "twice": 4}]
    assert distiset.report.unguarded == "", "it creates only what is not there: leases hold"
    assert pipeline.plan().complete


def test_memory_is_a_store_for_one_process() -> None:
    with Pipeline(name="tried", cache_dir="memory://tried-in-a-test") as pipeline:
        LoadDataFromDicts(data=[{"n": 1}])
    with pytest.raises(ParameterError, match=r"'memory://tried-in-a-test'.*engine='inline'"):
        pipeline.run()
    pipeline.run(engine="inline")
    assert pipeline.plan().complete
