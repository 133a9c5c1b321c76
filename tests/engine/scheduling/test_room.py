"""What fits where, if each replica is put on a node of our choice: exact, without a cluster."""

from __future__ import annotations

from distill_ray.engine.scheduling.room import Room, fit_together
from distill_ray.resources import StepResources

NODE = {"CPU": 2.0, "GPU": 1.0, "memory": 1000.0, "accelerator_type:L4": 1.0}


def needs(**declared: float | str) -> list[dict[str, float]]:
    return StepResources.model_validate(declared).bundles


def test_what_declares_nothing_takes_no_room() -> None:
    assert fit_together([[{}]] * 100, {})


def test_replicas_share_a_node_only_as_far_as_it_goes() -> None:
    half = needs(gpus=0.5)
    assert fit_together([half, half], {"a": NODE})
    assert not fit_together([half, half, half], {"a": NODE})
    assert fit_together([half, half, half], {"a": NODE, "b": NODE})


def test_two_half_full_nodes_do_not_hold_a_replica_that_wants_one() -> None:
    assert not fit_together([needs(cpus=3)], {"a": NODE, "b": NODE})


def test_the_bundles_of_a_replica_may_be_on_several_nodes() -> None:
    spread = needs(cpus=1, gpus=2, across_nodes=True)
    assert not fit_together([needs(cpus=1, gpus=2)], {"a": NODE, "b": NODE})
    assert fit_together([spread], {"a": NODE, "b": NODE})
    assert not fit_together([spread, spread], {"a": NODE, "b": NODE, "c": NODE})


def test_they_are_on_as_few_nodes_as_can_be() -> None:
    room = Room({"a": {"GPU": 2.0}, "b": {"GPU": 3.0}})
    assert room.find([{"GPU": 1}, {"GPU": 1}]) == ("a", "a")
    assert room.find([{"GPU": 1}] * 4) == ("a", "a", "b", "b")
    assert room.find([{"GPU": 1}] * 6) is None
    assert room.left("a") == {"GPU": 2.0}, "looking takes nothing"


def test_large_ones_find_their_node_before_small_ones_spoil_it() -> None:
    nodes = {"a": {"GPU": 4.0}, "b": {"GPU": 4.0}}
    assert fit_together([[{"GPU": 1}], [{"GPU": 2}], [{"GPU": 1}], [{"GPU": 4}]], nodes)


def test_tenths_add_up() -> None:
    room = Room({"a": {"GPU": 1.0}})
    tenth = {"GPU": 0.1}
    for _ in range(10):
        assert room.find([tenth]) == ("a",)
        room.take(("a",), [tenth])
    assert room.find([tenth]) is None
    assert room.lacking("a", tenth) == tenth


def test_the_node_is_taken_that_others_can_do_without() -> None:
    room = Room({"gpus": {"CPU": 8.0, "GPU": 4.0}, "large": {"CPU": 64.0}, "small": {"CPU": 4.0}})
    assert room.find([{"CPU": 2}]) == ("small",)
    assert room.find([{"CPU": 8}]) == ("large",)
    assert room.find([{"CPU": 2, "GPU": 1}]) == ("gpus",)


def test_a_node_that_is_gone_has_nothing_to_hold() -> None:
    room = Room({"a": {"GPU": 1.0}})
    room.take(("gone",), [{"GPU": 1.0}])
    room.take((), [{"GPU": 1.0}])
    assert room.left("a") == {"GPU": 1.0}
