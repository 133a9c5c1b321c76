from __future__ import annotations

from typing import Any

import pytest

from distill_ray.errors import ParameterError
from distill_ray.resources import StepResources


def test_a_step_without_a_declaration_reserves_nothing() -> None:
    resources = StepResources()
    assert resources.replicas == 1
    assert (resources.cpus, resources.gpus, resources.memory, resources.resources) == (None,) * 4


@pytest.mark.parametrize("gpus", [0, 0.5, 1, 2.0])
def test_a_gpu_may_be_shared_and_several_may_be_reserved(gpus: float) -> None:
    assert StepResources(gpus=gpus).gpus == gpus


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"gpus": 1.5}, "'gpus': above 1 GPU only whole numbers can be reserved, got 1.5"),
        ({"replicas": 0}, "'replicas': at least one replica runs a step, got 0"),
        ({"replicas": (0, 2)}, "'replicas': at least one replica runs a step"),
        ({"replicas": (3, 2)}, "'replicas': the fewest replicas come first, then the most"),
        ({"replicas": (1, 2, 3)}, "'replicas"),
        ({"cpus": -1}, "'cpus': .* got -1"),
        ({"gpus": 0.00001}, r"'gpus': the least that can be reserved is 0\.0001, got 1e-05"),
        ({"resources": {"ssd": 0.00001}}, "'resources': the least that can be reserved"),
        ({"resources": {"ssd": -1}}, "'resources': less than nothing of 'ssd' cannot be reserved"),
        ({"resources": {"CPU": 2}}, "'resources': how much of 'CPU' a replica reserves is said in `cpus`"),
        ({"gpus": 0.5, "across_nodes": True}, "across_nodes is for whole GPUs"),
        ({"across_nodes": True}, "across_nodes is for whole GPUs"),
        ({"gpu": 1}, r"no parameter 'gpu'\. Its parameters: replicas, cpus, gpus, memory"),
    ],
)
def test_what_cannot_be_reserved_is_an_error(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=f"StepResources: .*{message}"):
        StepResources(**declared)


def test_resources_are_checked_when_they_are_changed_too() -> None:
    resources = StepResources(replicas=2)
    resources.replicas = 4
    assert resources.replicas == 4
    with pytest.raises(ParameterError, match="StepResources: 'replicas'"):
        resources.replicas = 0


def test_replicas_may_be_a_number_or_the_fewest_and_the_most() -> None:
    assert (StepResources(replicas=3).fewest, StepResources(replicas=3).most) == (1, 3)
    assert (StepResources(replicas=(2, 8)).fewest, StepResources(replicas=(2, 8)).most) == (2, 8)
    as_a_file_holds_it: Any = [2, 8]
    assert StepResources(replicas=as_a_file_holds_it).replicas == (2, 8)


def test_what_a_replica_needs_has_the_names_of_the_cluster() -> None:
    resources = StepResources(cpus=1.5, gpus=0.5, memory=10, resources={"ssd": 1}, accelerator_type="L4")
    needs = {"CPU": 1.5, "GPU": 0.5, "memory": 10, "ssd": 1, "accelerator_type:L4": 0.001}
    assert resources.needs == needs
    assert StepResources(cpus=0).needs == {}


def test_gpus_across_nodes_are_reserved_one_by_one_and_what_else_is_needed_with_the_first() -> None:
    resources = StepResources(cpus=2, gpus=3, resources={"ssd": 1}, accelerator_type="L4", across_nodes=True)
    gpu = {"GPU": 1, "accelerator_type:L4": 0.001}
    assert resources.bundles == [{"CPU": 2, "ssd": 1, **gpu}, gpu, gpu]
    assert StepResources(cpus=2, gpus=3).bundles == [{"CPU": 2, "GPU": 3}]
