"""Steps that together want more than the cluster has: who runs beside whom, on real Ray."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import ParameterError, ResourceError
from tests.acceptance.scarce_pipeline import ROWS, declare, one_after_the_other, rows_of
from tests.clusters import Cluster

SCRIPT = str(Path(__file__).with_name("scarce_pipeline.py"))

HOLDER = """\
import sys, time
import ray

ray.init(address="auto", log_to_driver=False)

@ray.remote(num_gpus=1, num_cpus=0, accelerator_type="L4")
class Holder:
    def ready(self):
        return True

holder = Holder.remote()
ray.get(holder.ready.remote())
print("held", flush=True)
time.sleep(float(sys.argv[1]))
"""


def told(text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(next(x for x in text.splitlines() if x.startswith('{"')))["rows"]
    return rows


def test_steps_that_do_not_fit_together_run_one_after_the_other(local_ray: None, cache_root: Path) -> None:
    rows = rows_of(declare({name: {"cpus": 3} for name in ("one", "two", "three")}, str(cache_root)))
    assert one_after_the_other(rows, "one", "two", "three")


def test_stages_are_kept_though_all_would_fit(local_ray: None, cache_root: Path) -> None:
    pipeline = declare({"one": {}, "two": {}, "three": {}}, str(cache_root))
    rows = rows_of(pipeline, load_groups=[["one"], ["two", "three"]])
    assert one_after_the_other(rows, "one", "two")
    again = pipeline.run(load_groups="sequential_step_execution")
    assert {step.rows_computed for step in again.report.steps.values()} == {0}, "they change no output"


def test_a_pool_grows_as_its_backlog_does(local_ray: None, cache_root: Path) -> None:
    rows = rows_of(declare({"one": {"cpus": 1, "replicas": (1, 3)}}, str(cache_root), seconds=0.5))
    assert 2 <= len({row["one"]["process"] for row in rows}) <= 3


def test_what_no_node_could_ever_hold_is_an_error_before_anything_starts(
    local_ray: None, cache_root: Path
) -> None:
    pipeline = declare({"one": {}, "two": {"gpus": 8}}, str(cache_root))
    with pytest.raises(ResourceError, match=r"Step 'two' declares GPU 8 for each replica.*GPU 0"):
        pipeline.run()
    assert not list(cache_root.glob("steps/*/parts/*"))
    with pytest.raises(ParameterError, match="wait_for_resources is a number of seconds, not 'soon'"):
        pipeline.run(wait_for_resources="soon")  # type: ignore[arg-type]


def test_steps_that_want_the_one_gpu_of_a_kind_hold_it_in_turn(cluster: Cluster, tmp_path: Path) -> None:
    wanted = {"gpus": 1, "accelerator_type": "L4"}
    steps = json.dumps(dict.fromkeys(["one", "two", "three"], wanted))
    ran = cluster.run(sys.executable, SCRIPT, steps, str(tmp_path / "cache"))
    assert ran.returncode == 0, ran.stderr
    assert one_after_the_other(told(ran.stdout), "one", "two", "three")


@pytest.mark.slow
def test_what_another_job_holds_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    holder = cluster.start(sys.executable, "-c", HOLDER, "30")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    begun = time.time()
    steps = json.dumps({"one": {"gpus": 1, "accelerator_type": "L4"}})
    ran = cluster.run(sys.executable, SCRIPT, steps, str(tmp_path / "cache"))
    assert ran.returncode == 0, ran.stderr
    holder.communicate(timeout=60)
    assert min(row["one"]["loaded"] for row in told(ran.stdout)) > begun + 5, "it was held until then"


@pytest.mark.slow
def test_replicas_join_when_a_node_does(tmp_path: Path) -> None:
    with Cluster() as cluster:
        cluster.add_node(name="first", cpus=1, gpus=1)
        steps = json.dumps({"one": {"gpus": 1, "replicas": 2}})
        run = cluster.start(sys.executable, SCRIPT, steps, str(tmp_path / "cache"), "3")
        time.sleep(5)
        cluster.add_node(name="second", cpus=1, gpus=1)
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        assert {row["one"]["node"] for row in told(out)} == {"first", "second"}
        assert len(told(out)) == ROWS
