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
        ({"replicas": 0}, "'replicas': Input should be greater than or equal to 1, got 0"),
        ({"cpus": -1}, "'cpus': .* got -1"),
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
