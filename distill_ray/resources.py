"""How a step is run: replicas and what each of them needs. Never part of what the step computes."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from distill_ray.declaration import Declaration
from distill_ray.types import RuntimeParameter

SMALLEST = 0.0001
"""The least of a resource that Ray reserves."""

_FIELDS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}
"""What Ray calls a resource that has a field of its own."""


class StepResources(Declaration):
    """What each replica of a step asks of the cluster.

    Attributes:
        replicas: how many copies of the step run at once, as far as there is room: one is enough to go on.
            Or the fewest and the most, ``(1, 8)``: then as many as the rows that wait keep busy.
        cpus: CPUs a replica reserves; may be a fraction; None reserves none.
        gpus: GPUs a replica reserves; a fraction below 1 shares one, above 1 only whole numbers.
        memory: bytes of memory a replica reserves.
        resources: custom resources of the cluster, by name.
        accelerator_type: the kind of accelerator a node must have, for example ``"A100"``.
        across_nodes: a replica's GPUs may be on several nodes: each replica reserves a Ray placement group
            with a bundle for each GPU, and its process runs in the first. Only for what makes processes of
            its own in the group, as the model `vLLM` does.
    """

    replicas: RuntimeParameter[int | tuple[int, int]] = 1
    cpus: RuntimeParameter[float | None] = Field(default=None, ge=0)
    gpus: RuntimeParameter[float | None] = Field(default=None, ge=0)
    memory: RuntimeParameter[int | None] = Field(default=None, ge=0)
    resources: RuntimeParameter[dict[str, float] | None] = None
    accelerator_type: RuntimeParameter[str | None] = None
    across_nodes: RuntimeParameter[bool] = False

    @property
    def needs(self) -> dict[str, float]:
        """What one replica declares, by Ray's names: ``{"CPU": 2, "GPU": 0.5}``."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory, **(self.resources or {})}
        if self.accelerator_type:
            amounts[f"accelerator_type:{self.accelerator_type}"] = 0.001
        return {name: amount for name, amount in amounts.items() if amount}

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What one replica reserves on one node, and on others or the same; its process runs in the first."""
        if not self.across_nodes:
            return [self.needs]
        accelerator = f"accelerator_type:{self.accelerator_type}"
        of_gpu = {name: n for name, n in {**self.needs, "GPU": 1}.items() if name in ("GPU", accelerator)}
        return [{**self.needs, "GPU": 1}, *(dict(of_gpu) for _ in range(int(self.gpus or 0) - 1))]

    @property
    def fewest(self) -> int:
        """How many replicas come before any other step gets more than its own fewest."""
        return self.replicas[0] if isinstance(self.replicas, tuple) else 1

    @property
    def most(self) -> int:
        """How many replicas run at once at most."""
        return self.replicas[1] if isinstance(self.replicas, tuple) else self.replicas

    @field_validator("replicas")
    @classmethod
    def _check_replicas(cls, replicas: int | tuple[int, int]) -> int | tuple[int, int]:
        fewest, most = replicas if isinstance(replicas, tuple) else (replicas, replicas)
        if fewest < 1:
            raise ValueError("at least one replica runs a step")
        if fewest > most:
            raise ValueError("the fewest replicas come first, then the most")
        return replicas

    @field_validator("cpus", "gpus", "resources")
    @classmethod
    def _check_amounts(cls, given: Any) -> Any:
        custom = given if isinstance(given, dict) else {}
        for name, amount in custom.items():
            if name in _FIELDS:
                raise ValueError(f"how much of '{name}' a replica reserves is said in `{_FIELDS[name]}`")
            if not amount >= 0:
                raise ValueError(f"less than nothing of '{name}' cannot be reserved")
        if any(0 < amount < SMALLEST for amount in custom.values() or (given or 0,)):
            raise ValueError(f"the least that can be reserved is {SMALLEST}")
        return given

    @field_validator("gpus")
    @classmethod
    def _check_gpus(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus % 1:
            raise ValueError("above 1 GPU only whole numbers can be reserved")
        return gpus

    @model_validator(mode="after")
    def _check_across_nodes(self) -> Self:
        if self.across_nodes and (not self.gpus or self.gpus % 1):
            raise ValueError("across_nodes is for whole GPUs: say in `gpus` how many a replica has in all")
        return self
