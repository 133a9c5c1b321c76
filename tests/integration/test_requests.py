"""What a run asks of a bucket, counted on its way there: the figures of docs/performance.md.

Bounds are by what is asked, and of what; whatever is not in them must not be asked at all. Heartbeats are not
counted: they come with time, every other second. Nor is what tries a root out, once in a process.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest

from distill_ray.cache.writer import MERGE
from distill_ray.distiset import Distiset
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import FLUSH_VARIABLE, Engine
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput
from distill_ray.types import Row
from tests.faulty_proxy import FaultyProxy, Request
from tests.gcs_server import GcsRoot

ROWS = 200

THINGS = {
    "settings": r"format\.json",
    "manifest": r"steps/[^/]+/outputs/.+",
    "note": r"steps/[^/]+/parts/_used\..+",
    "part": r"steps/[^/]+/parts/.*\.parquet",
    "parts": r"steps/[^/]+/parts/?",
    "preimage": r"steps/[^/]+/signature\.json",
    "lease": r"leases/.*",
    "heartbeat": r"runs/[^/]+/heartbeat\.json",
    "run record": r"runs/.+",
    "pipeline record": r"pipelines/.+",
    "probe": r"probes/.+",
}
"""What stands in a root."""

RUN = {
    "read settings": 1,
    "read pipeline record": 2,
    "list lease": 1,
    "write run record": 2,
    "write pipeline record": 3,
    "write note": 1,
}
"""Of any run that computes something."""

STEP = {
    "read manifest": 2,
    "list parts": 1,
    "write lease": 1,
    "delete lease": 1,
    "write preimage": 1,
    "write manifest": 1,
}
"""Of each step that it computes."""

NEW_ROOT = {"read settings": 2, "write settings": 1}
"""Of the first run on a root, more."""


class Add(Step):
    version: ClassVar[str | None] = "1"
    row_wise: ClassVar[bool] = True
    inputs: ClassVar[list[str]] = ["n"]
    outputs: ClassVar[list[str]] = ["n"]
    more: int = 0

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{"n": row["n"] + self.more} for row in inputs]


class Sum(Step):
    version: ClassVar[str | None] = "1"
    more: int = 0

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [{"n": sum(row["n"] for row in rows) + self.more} for rows in zip(*inputs, strict=True)]


class SlowAdd(Step):
    version: ClassVar[str | None] = "1"

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(0.03)
        yield [{"n": row["n"] + 1} for row in inputs]


def numbers(count: int = ROWS) -> list[Row]:
    return [{"n": n} for n in range(count)]


def chain(
    root: GcsRoot, last: int = 3, rows: int = ROWS, name: str = "chain", *, read_only: bool = False
) -> Pipeline:
    """Three steps one after the other."""
    with Pipeline(
        name=name, cache_dir=root.url, storage_options=root.storage_options, cache_read_only=read_only
    ) as pipeline:
        load = LoadDataFromDicts(name="load", data=numbers(rows), batch_size=50)
        load >> Add(name="first", more=1, input_batch_size=20) >> Add(name="last", more=last)
    return pipeline


def star(root: GcsRoot, points: int, more: int = 0) -> Pipeline:
    """So many steps that flow into one."""
    with Pipeline(name="star", cache_dir=root.url, storage_options=root.storage_options) as pipeline:
        load, total = LoadDataFromDicts(name="load", data=numbers()), Sum(name="sum", more=more)
        for point in range(points):
            load >> Add(name=f"point-{point}", more=point) >> total
    return pipeline


def fork(root: GcsRoot, leaves: int) -> Pipeline:
    """One step that flows into so many leaves."""
    with Pipeline(name="fork", cache_dir=root.url, storage_options=root.storage_options) as pipeline:
        load = LoadDataFromDicts(name="load", data=numbers())
        for leaf in range(leaves):
            load >> Add(name=f"leaf-{leaf}", more=leaf)
    return pipeline


def run_and_read(pipeline: Pipeline, engine: Engine = "inline") -> Distiset:
    """Run it, and read all rows of all leaves."""
    distiset = pipeline.run(engine=engine, progress="none")
    for splits in distiset.values():
        assert len(list(splits["train"])) == len(splits["train"]) > 0
    return distiset


def counted(requests: Sequence[Request], root: GcsRoot) -> Counter[str]:
    """What was asked and how often, such as ``read part``; heartbeats and probes left out."""
    top = root.url.removeprefix("gs://").partition("/")[2]
    counts: Counter[str] = Counter()
    for request in requests:
        path = request.name.removeprefix(f"{top}/")
        (thing, *_) = [thing for thing, pattern in THINGS.items() if re.fullmatch(pattern, path)] or [path]
        if thing not in ("heartbeat", "probe"):
            counts[f"{request.kind} {thing}"] += 1
    return counts


def bound(*several: Mapping[str, int], **more: int) -> Counter[str]:
    """All of these together; of ``more`` the names have ``_`` for the space."""
    total = Counter({name.replace("_", " "): count for name, count in more.items()})
    for each in several:
        total.update(each)
    return total


def times(count: int, each: Mapping[str, int]) -> dict[str, int]:
    return {name: count * number for name, number in each.items()}


# A complete hit.


def test_a_complete_hit_is_three_requests_and_one_a_part_of_the_leaf(
    far_root: GcsRoot, faulty_proxy: FaultyProxy
) -> None:
    for rows in (ROWS, 2 * ROWS):
        run_and_read(chain(far_root, rows=rows))  # the leaf has one part more each time
    for _ in range(2):
        with faulty_proxy.counting() as asked:
            run_and_read(chain(far_root, rows=2 * ROWS))
        assert counted(asked, far_root) == {
            "read settings": 1,
            "read manifest": 1,
            "list parts": 1,
            "read part": 2,
        }
        assert len(asked) == 3 + 2


def test_a_complete_hit_of_several_leaves_is_two_requests_for_each(
    far_root: GcsRoot, faulty_proxy: FaultyProxy
) -> None:
    run_and_read(fork(far_root, leaves=3))
    with faulty_proxy.counting() as asked:
        run_and_read(fork(far_root, leaves=3))
    assert len(asked) == 1 + 2 * 3 + 3
    assert Counter(request.kind for request in asked) == {"read": 1 + 3 + 3, "list": 3}


def test_the_first_hit_of_a_day_or_of_a_pipeline_is_recorded_once(
    far_root: GcsRoot, faulty_proxy: FaultyProxy
) -> None:
    run_and_read(chain(far_root))
    with faulty_proxy.counting() as asked:
        run_and_read(chain(far_root, name="another"))
    hit = {"read settings": 1, "read manifest": 1, "list parts": 1, "read part": 1}
    recorded = {name: count for name, count in RUN.items() if "record" in name or "note" in name}
    assert counted(asked, far_root) <= bound(hit, recorded)
    with faulty_proxy.counting() as asked:
        run_and_read(chain(far_root, name="another"))
    assert counted(asked, far_root) == hit


def test_a_hit_on_a_root_that_is_only_read_writes_nothing_whoever_ran_it_before(
    far_root: GcsRoot, faulty_proxy: FaultyProxy
) -> None:
    run_and_read(chain(far_root))
    with faulty_proxy.counting() as asked:
        run_and_read(chain(far_root, name="another", read_only=True))
    assert len(asked) == 3 + 1
    assert {request.kind for request in asked} == {"read", "list"}


def test_a_plan_of_a_hit_is_three_requests(far_root: GcsRoot, faulty_proxy: FaultyProxy) -> None:
    run_and_read(chain(far_root))
    with faulty_proxy.counting() as asked:
        assert chain(far_root).plan().complete
    assert len(asked) == 3


# A partial hit.


@pytest.mark.parametrize("hits", [1, 2, 9])
def test_of_a_partial_hit_each_step_that_is_found_is_one_request_and_the_parts_that_are_read(
    far_root: GcsRoot, faulty_proxy: FaultyProxy, hits: int
) -> None:
    run_and_read(star(far_root, hits))
    with faulty_proxy.counting() as asked:
        distiset = run_and_read(star(far_root, hits, more=1))
    assert distiset.report.rows_computed == ROWS
    counts = counted(asked, far_root)
    # The driver reads a part's footer, and who computes reads the part.
    parts = {"read part": 2 * hits + 1, "write part": 1}
    changed = {"read preimage": 1, "delete note": 1}  # what the step was before; what the records said
    assert counts <= bound(RUN, STEP, parts, changed, read_manifest=hits)
    deciding = sum(counts[name] for name in ("read settings", "read manifest", "list parts"))
    asked_again = 1  # for the output that is computed: another run may have finished it meanwhile
    assert deciding - asked_again <= hits + 3


@pytest.mark.parametrize("times_before", [1, 3])
def test_where_rows_are_added_each_stored_part_is_asked_for_its_index_once(
    far_root: GcsRoot, faulty_proxy: FaultyProxy, times_before: int
) -> None:
    for time_ in range(1, times_before + 1):
        run_and_read(chain(far_root, rows=time_ * ROWS))
    with faulty_proxy.counting() as asked:
        distiset = run_and_read(chain(far_root, rows=(times_before + 1) * ROWS))
    assert distiset.report.steps["last"].rows_computed == ROWS
    of_two_steps, of_the_leaf = 2 * times_before, times_before + 1
    parts = {"read part": of_two_steps + of_the_leaf, "write part": 3}
    functions = {"read preimage": 3, "delete note": 1}  # another loader, and two steps as they were
    assert counted(asked, far_root) <= bound(RUN, times(3, STEP), parts, functions)


# A cold run.


@pytest.mark.parametrize("rows", [ROWS, 10 * ROWS])
def test_a_cold_run_writes_each_part_once_and_asks_a_few_things_for_each_step_whatever_its_batches(
    far_root: GcsRoot, faulty_proxy: FaultyProxy, rows: int
) -> None:
    with faulty_proxy.counting() as asked:
        run_and_read(chain(far_root, rows=rows))
    parts = {"write part": 3, "read part": 1}
    assert counted(asked, far_root) <= bound(RUN, times(3, STEP), NEW_ROOT, parts)


def test_a_cold_run_on_ray_asks_no_more(
    far_root: GcsRoot, faulty_proxy: FaultyProxy, local_ray: None
) -> None:
    with faulty_proxy.counting() as asked:
        run_and_read(chain(far_root, rows=10 * ROWS), "ray")
    parts = {"write part": 3, "read part": 1}
    assert counted(asked, far_root) <= bound(RUN, times(3, STEP), NEW_ROOT, parts)


def test_small_parts_are_written_once_and_a_seventh_more_to_become_few_large_ones(
    far_root: GcsRoot, faulty_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FLUSH_VARIABLE, "0.001")
    batches = 64
    with Pipeline(cache_dir=far_root.url, storage_options=far_root.storage_options) as pipeline:
        load = LoadDataFromDicts(name="load", data=numbers(batches), batch_size=batches)
        load >> SlowAdd(name="slow", input_batch_size=1)
    with faulty_proxy.counting() as asked:
        distiset = run_and_read(pipeline)
    assert len(distiset["default"]["train"]) == batches
    counts = counted(asked, far_root)
    written, merged = counts["write part"] - 1, counts["delete part"]  # the loader's is one
    assert written - merged == 1, "parts that are left"
    assert MERGE <= merged < written <= batches * (1 + 1 / (MERGE - 1)) + 1
    assert counts["read part"] == merged + 1  # at the end, for the rows
    del counts["write part"], counts["delete part"], counts["read part"]
    seen_by_others = {"list lease": 1}  # whether another run may be reading what was merged
    assert counts <= bound(RUN, times(2, STEP), NEW_ROOT, seen_by_others)
