"""What Prometheus gets to see of a run."""

from __future__ import annotations

import re
import time
from urllib.request import urlopen

import pytest

from distill_ray.events import CallDone, StepAdvanced
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepOutput

EXPORT_SECONDS = 40
"""Ray hands over what a process counts now and then: every ten seconds, where nothing else was said."""


class Doubles(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs * 2


def exported() -> dict[tuple[str, str], float]:
    """{(metric, step): value} of the pipeline, as the node's agent says."""
    import ray

    (node,) = ray.nodes()
    with urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(
        r'^ray_distill_ray_(\w+)\{.*pipeline="counted".*step="(\w+)".*\} (\S+)$', text, re.MULTILINE
    )
    return {(metric, step): float(value) for metric, step, value in found}


def test_a_run_is_counted_and_exported_by_the_agent_of_the_node(local_ray: None) -> None:
    with Pipeline(name="counted") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(100)])
        load >> Doubles(name="doubles", input_batch_size=10)
    pipeline.run()
    end = time.monotonic() + EXPORT_SECONDS
    while (values := exported()).get(("rows_in_total", "doubles")) != 100:  # it exports now and then
        assert time.monotonic() < end, f"Ray's agent exports too little of the run: {values}"
        time.sleep(0.2)
    assert values["rows_out_total", "load"] == 100
    assert values["rows_out_total", "doubles"] == 200
    assert values["rows_computed_total", "doubles"] == 200
    assert values["batches_computed_total", "doubles"] == 10
    assert values["call_seconds_count", "doubles"] >= 1
    assert values["replicas", "doubles"] == 0


def test_counting_that_fails_is_said_once_and_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    from distill_ray.engine.on_ray.metrics import RayMetrics

    with RayMetrics("counted") as metrics:
        for step in (["no text"], ["nor this"]):
            metrics.listen(CallDone(step, 0, "compute", 1, 1, 1, 1.0, 0.0))  # type: ignore[arg-type]
        metrics.listen(StepAdvanced("doubles", rows_in=10))
    assert [record.getMessage()[:47] for record in caplog.records] == [
        "The run is counted for Prometheus no more: Type"
    ]
