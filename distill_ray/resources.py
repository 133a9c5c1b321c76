"""How a step is run: replicas and what each of them needs. Never part of what the step computes."""

from __future__ import annotations

from pydantic import Field, field_validator

from distill_ray.declaration import Declaration
from distill_ray.types import RuntimeParameter


class StepResources(Declaration):
    """What each replica of a step asks of the cluster.

    Attributes:
        replicas: how many copies of the step run at once.
        cpus: CPUs a replica reserves; may be a fraction; None reserves none.
        gpus: GPUs a replica reserves; a fraction below 1 shares one, above 1 only whole numbers.
        memory: bytes of memory a replica reserves.
        resources: custom resources of the cluster, by name.
        accelerator_type: the kind of accelerator a node must have, for example ``"A100"``.
    """

    replicas: RuntimeParameter[int] = Field(default=1, ge=1)
    cpus: RuntimeParameter[float | None] = Field(default=None, ge=0)
    gpus: RuntimeParameter[float | None] = Field(default=None, ge=0)
    memory: RuntimeParameter[int | None] = Field(default=None, ge=0)
    resources: RuntimeParameter[dict[str, float] | None] = None
    accelerator_type: RuntimeParameter[str | None] = None

    @field_validator("gpus")
    @classmethod
    def _check_gpus(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus % 1:
            raise ValueError("above 1 GPU only whole numbers can be reserved")
        return gpus
