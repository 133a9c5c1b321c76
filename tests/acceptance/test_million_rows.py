"""A million rows through a bucket: few large objects, whatever the batches and however often parts are cut.

The table in docs/performance.md is written by ::

    DISTILL_RAY_WRITE_TABLES=1 pytest -m slow tests/acceptance/test_million_rows.py
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from distill_ray.cache.writer import WriterSettings
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import FLUSH_VARIABLE, Engine
from distill_ray.resources import StepResources
from distill_ray.steps import GeneratorStep, Step, StepInput, StepOutput
from distill_ray.storage import open_storage
from distill_ray.types import GeneratorStepOutput
from tests.acceptance.measured_table import write_table
from tests.faulty_proxy import FaultyProxy
from tests.gcs_server import GcsRoot, serving

ROWS = 1_000_000
MOST_OBJECTS = 100
"""Parts that a step may leave."""


class Ids(GeneratorStep):
    version: ClassVar[str | None] = "1"
    outputs: ClassVar[list[str]] = ["id", "text"]
    count: int

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, self.count, self.batch_size):
            end = min(self.count, start + self.batch_size)
            yield [{"id": n, "text": f"the text of row {n}"} for n in range(start, end)], end == self.count


class Shout(Step):
    version: ClassVar[str | None] = "1"
    inputs: ClassVar[list[str]] = ["text"]
    outputs: ClassVar[list[str]] = ["loud"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "loud": row["text"].upper()} for row in inputs]


class Measure(Step):
    version: ClassVar[str | None] = "1"
    row_wise: ClassVar[bool] = True
    inputs: ClassVar[list[str]] = ["loud"]
    outputs: ClassVar[list[str]] = ["length"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "length": len(row["loud"])} for row in inputs]


def declare(root: GcsRoot, batch_size: int) -> Pipeline:
    resources = StepResources(replicas=2)
    with Pipeline(name="million", cache_dir=root.url, storage_options=root.storage_options) as pipeline:
        ids = Ids(name="ids", count=ROWS, batch_size=batch_size)
        shout = Shout(name="shout", input_batch_size=batch_size, resources=resources)
        ids >> shout >> Measure(name="measure", input_batch_size=batch_size, resources=resources)
    return pipeline


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    """A bucket of its own, on a disk: one in memory would take longer with every object."""
    folder = tmp_path_factory.mktemp("bucket")
    options = ("-backend", "filesystem", "-filesystem-root", str(folder / "objects"))
    with serving(folder, *options) as address:
        proxy = FaultyProxy(address)
        proxy.start()
        yield proxy
        proxy.close()


@pytest.fixture(scope="module")
def measured() -> Iterator[list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    yield lines
    if lines:
        write_table("acceptance/test_million_rows.py", lines, page="performance.md")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("engine", "batch_size", "flush_seconds"),
    [("inline", 5_000, 5.0), ("inline", 1_000, 0.1), ("ray", 1_000, 5.0), ("ray", 1_000, 0.1)],
)
def test_a_million_rows_are_few_objects(
    proxy: FaultyProxy,
    engine: Engine,
    batch_size: int,
    flush_seconds: float,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    measured: list[dict[str, Any]],
) -> None:
    if engine == "ray":
        request.getfixturevalue("local_ray")
    monkeypatch.setenv(FLUSH_VARIABLE, str(flush_seconds))
    root = _new_root(proxy, f"{engine}-{batch_size}-{flush_seconds}")
    with proxy.counting() as asked:
        began = time.monotonic()
        distiset = declare(root, batch_size).run(engine=engine)
        seconds = time.monotonic() - began
    assert distiset.report.rows_computed == 3 * ROWS
    kinds = Counter(each.kind for each in asked)
    writes = [each.name for each in asked if each.kind == "write" and each.name.endswith(".parquet")]
    written = Counter(name.split("/")[2] for name in writes)

    with proxy.counting() as asked:
        began = time.monotonic()
        rows = declare(root, batch_size).run(engine=engine)["default"]["train"]
        for n, row in enumerate(rows):
            assert row["id"] == n
            assert row["length"] == len(row["loud"])
        assert len(rows) == ROWS
        reading = time.monotonic() - began

    storage = open_storage(root.url, root.storage_options)
    for folder in storage.folders("steps"):
        parts = _parts(storage.sizes(f"steps/{folder}/parts"))
        assert len(parts) <= MOST_OBJECTS
        measured.append(
            {
                "engine": engine,
                "rows in a batch": batch_size,
                "a part each": f"{flush_seconds} s",
                "step": f"`{folder.partition('-')[0]}`",
                "written": written[folder],
                "parts left": len(parts),
                "MB": f"{sum(parts) / 1e6:.1f}",
                "largest MB": f"{max(parts) / 1e6:.1f}",
                "requests of the run": kinds.total(),
                "seconds": f"{seconds:.0f}",
                "reading again, requests": len(asked),
                "reading again, seconds": f"{reading:.0f}",
            }
        )
    leaf = _parts(storage.sizes(f"steps/{_folder(storage.folders('steps'), 'Measure')}/parts"))
    assert len(asked) == 3 + len(leaf)
    assert max(leaf) <= 2 * WriterSettings().part_bytes


def _new_root(proxy: FaultyProxy, name: str) -> GcsRoot:
    from gcsfs.core import GCSFileSystem

    options = {"endpoint_url": proxy.url, "token": "anon", "project": "test"}
    bucket = name.replace(".", "-")
    GCSFileSystem(skip_instance_cache=True, **options).mkdir(bucket)
    return GcsRoot(f"gs://{bucket}/root", options)


def _parts(sizes: dict[str, int]) -> list[int]:
    return [size for name, size in sizes.items() if name.endswith(".parquet")]


def _folder(folders: list[str], class_name: str) -> str:
    return next(folder for folder in folders if folder.startswith(f"{class_name}-"))
