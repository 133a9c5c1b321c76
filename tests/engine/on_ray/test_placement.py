"""What fits where: decided from what nodes have, without a cluster."""

from __future__ import annotations

import pytest

from distill_ray.engine.on_ray.placement import actor_options, check_placeable, say_if_short
from distill_ray.errors import ResourceError
from distill_ray.resources import StepResources

NODE = {"CPU": 2.0, "GPU": 1.0, "memory": 1000.0, "accelerator_type:L4": 1.0}


def test_a_step_without_a_declaration_reserves_nothing() -> None:
    options = actor_options(StepResources())
    assert options["num_cpus"] == 0
    assert options["num_gpus"] == 0


def test_everything_declared_is_asked_for() -> None:
    resources = StepResources(cpus=1.5, gpus=0.5, memory=10, resources={"ssd": 1}, accelerator_type="L4")
    options = actor_options(resources)
    assert options["num_cpus"] == 1.5
    assert options["num_gpus"] == 0.5
    assert options["memory"] == 10
    assert options["resources"] == {"ssd": 1}
    assert options["accelerator_type"] == "L4"


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
    check_placeable("fits", spread, [NODE, NODE])
    with pytest.raises(ResourceError, match="no node of the cluster has"):
        check_placeable("huge", StepResources(cpus=1, gpus=2), [NODE, NODE])
    with pytest.raises(ResourceError, match=r"Step 'huge' declares CPU 1, GPU 2 .* do not have together"):
        check_placeable("huge", spread, [NODE])


def test_it_is_said_where_even_the_fewest_do_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    say_if_short("judge", StepResources(gpus=1, replicas=(2, 4)), {"a": NODE, "b": NODE})
    assert not caplog.records
    say_if_short("judge", StepResources(gpus=1, replicas=(3, 4)), {"a": NODE, "b": NODE})
    assert "Step 'judge' is to have 3 replicas at least, which the cluster has no room for" in caplog.text


def test_nothing_is_said_to_go_on_where_not_even_one_replica_fits(caplog: pytest.LogCaptureFixture) -> None:
    for replicas in (1, (2, 4)):
        say_if_short("judge", StepResources(gpus=64, replicas=replicas), {"a": NODE, "b": NODE})
    assert not caplog.records


def test_a_replica_goes_to_the_node_that_was_chosen() -> None:
    node = "ab" * 28
    strategy = actor_options(StepResources(gpus=1), node=node)["scheduling_strategy"]
    assert (strategy.node_id, strategy.soft) == (node, False)
    assert "scheduling_strategy" not in actor_options(StepResources(gpus=1))
