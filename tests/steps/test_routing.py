"""Which steps get a batch: drawn from global generators, which the tests set on purpose."""
# ruff: noqa: NPY002

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from distill_ray.errors import GraphError, ParameterError
from distill_ray.pipeline import RoutingBatchFunction, routing_batch_function, sample_n_steps

STEPS = ("a", "b", "c", "d")


def choices(
    function: RoutingBatchFunction, batches: int = 20, place: tuple[str, str] = ("f" * 64, "load")
) -> list[frozenset[str]]:
    """What a function chooses, asked for the first time."""
    return [RoutingBatchFunction(function.routing_function).choice(place, STEPS, n) for n in range(batches)]


@routing_batch_function(description="By both generators.")
def drawn(steps: list[str]) -> list[str]:
    return [steps[random.randrange(2)], steps[2 + np.random.randint(2)]]


@pytest.mark.parametrize("function", [sample_n_steps(2), drawn])
def test_what_is_drawn_depends_on_the_place_and_the_batch_alone(function: RoutingBatchFunction) -> None:
    random.seed(1)
    np.random.seed(1)
    first = choices(function)
    random.seed(2)
    np.random.seed(2)
    assert choices(function) == first
    assert len(set(first)) > 1
    assert first != choices(function, place=("f" * 64, "other"))


def test_another_process_draws_the_same_also_where_numpy_is_first_used_in_the_function() -> None:
    code = f"from {drawn.routing_function.__module__} import *; print(sorted(*choices(drawn, 1)))"
    there = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert there == f"{sorted(choices(drawn)[0])}\n"


def test_generators_go_on_as_if_nothing_had_been_drawn() -> None:
    random.seed(1)
    np.random.seed(1)
    wanted = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    choices(drawn)
    assert (random.random(), np.random.random()) == wanted


def test_a_function_is_called_once_for_each_batch_in_order() -> None:
    called: list[int] = []

    @routing_batch_function()
    def counting(steps: list[str]) -> list[str]:
        called.append(len(called))
        return [steps[called[-1] % 2]]

    place = ("f" * 64, "load")
    assert counting.choice(place, STEPS, 3) == {"b"}
    assert [counting.choice(place, STEPS, n) for n in range(4)] == [{"a"}, {"b"}, {"a"}, {"b"}]
    assert len(called) == 4


def test_samples_are_even() -> None:
    chosen = [sample_n_steps(2).choice(("f" * 64, str(place)), STEPS, 0) for place in range(600)]
    assert all(len(each) == 2 for each in chosen)
    assert all(250 < sum(name in each for each in chosen) < 350 for name in STEPS)


@pytest.mark.parametrize("n", [0, -1, 1.5, "two"])
def test_a_sample_is_of_one_step_or_more(n: Any) -> None:
    with pytest.raises(ParameterError, match=r"SampleSteps.*'n'"):
        sample_n_steps(n)


def test_more_steps_than_there_are_cannot_be_sampled() -> None:
    with pytest.raises(GraphError, match=r"sample_n_steps\(5\) cannot choose among 4 steps"):
        choices(sample_n_steps(5))


def test_the_decorator_wants_parentheses() -> None:
    with pytest.raises(GraphError, match=r"write `@routing_batch_function\(\)`"):
        routing_batch_function(lambda steps: steps)  # type: ignore[arg-type]
