"""What fits where: decided from what nodes have, without a cluster."""

from __future__ import annotations

import pytest

from distill_ray.engine.on_ray.placement import actor_options, check_placeable, fit_together
from distill_ray.errors import ResourceError
from distill_ray.resources import StepResources

NODE = {"CPU": 2.0, "GPU": 1.0, "memory": 1000.0, "accelerator_type:L4": 1.0}


def test_a_step_without_a_declaration_reserves_nothing() -> None:
    options = actor_options(StepResources())
    assert options["num_cpus"] == 0
    assert options["num_gpus"] == 0
    assert fit_together([StepResources()] * 100, [NODE])


def test_everything_declared_is_asked_for() -> None:
    resources = StepResources(cpus=1.5, gpus=0.5, memory=10, resources={"ssd": 1}, accelerator_type="L4")
    options = actor_options(resources)
    assert options["num_cpus"] == 1.5
    assert options["num_gpus"] == 0.5
    assert options["memory"] == 10
    assert options["resources"] == {"ssd": 1}
    assert options["accelerator_type"] == "L4"


def test_replicas_share_a_node_only_as_far_as_it_goes() -> None:
    half = StepResources(gpus=0.5)
    assert fit_together([half, half], [NODE])
    assert not fit_together([half, half, half], [NODE])
    assert fit_together([half, half, half], [NODE, NODE])


def test_two_half_full_nodes_do_not_hold_a_replica_that_wants_one() -> None:
    assert not fit_together([StepResources(cpus=3)], [NODE, NODE])


@pytest.mark.parametrize(
    "resources",
    [
        StepResources(gpus=2),
        StepResources(resources={"ssd": 1}),
        StepResources(accelerator_type="H100"),
        StepResources(memory=2000),
    ],
)
def test_what_no_node_has_is_refused_by_name(resources: StepResources) -> None:
    with pytest.raises(ResourceError, match=r"Step 'huge' declares .* which no node of the cluster has"):
        check_placeable("huge", resources, [NODE, NODE])


def test_the_refusal_says_what_each_kind_of_node_has() -> None:
    nodes = [{"node:10.0.0.1": 1.0, "CPU": 8.0}, *({"node:10.0.0.2": 1.0, "CPU": 2.0, "GPU": 1.0},) * 2]
    with pytest.raises(ResourceError) as refused:
        check_placeable("huge", StepResources(cpus=4, gpus=2), nodes)
    assert "declares CPU 4, GPU 2 for each replica" in str(refused.value)
    assert "10.0.0.1: CPU 8, GPU 0; 2 nodes (10.0.0.2): CPU 2, GPU 1." in str(refused.value)


def test_gpus_across_nodes_need_not_be_on_one() -> None:
    spread = StepResources(cpus=1, gpus=2, across_nodes=True)
    assert not fit_together([StepResources(cpus=1, gpus=2)], [NODE, NODE])
    assert fit_together([spread], [NODE, NODE])
    assert not fit_together([spread, spread], [NODE, NODE, NODE])
    with pytest.raises(ResourceError, match=r"Step 'huge' declares CPU 1, GPU 2 .* do not have together"):
        check_placeable("huge", spread, [NODE])
