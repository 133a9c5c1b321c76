"""What a run lacks is told to an autoscaler by actors that give their place back once they have one."""

from __future__ import annotations

import ray

from distill_ray.engine.on_ray.wishes import Wishes


def test_wishes_that_are_granted_give_their_places_back_and_keep_nobody_waiting(local_ray: None) -> None:
    wishes = Wishes()
    wishes.are([{"CPU": 1.0}] * 4)
    with_all_cpus = ray.remote(num_cpus=4)(lambda: "had all of them")
    assert ray.get(with_all_cpus.remote(), timeout=60) == "had all of them"
    wishes.are([])
