"""How a step is run: replicas and what each of them needs. Never part of what the step computes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from distill_ray.types import RuntimeParameter


class StepResources(BaseModel):
    """What each replica of a step asks of the cluster.

    Attributes:
        replicas: how many copies of the step run at once.
        cpus: CPUs a replica reserves; may be a fraction; None reserves none.
        gpus: GPUs a replica reserves; a fraction below 1 shares one, above 1 whole numbers.
        memory: bytes of memory a replica reserves.
        resources: custom resources of the cluster, by name.
        accelerator_type: the kind of accelerator a node must have, for example ``"A100"``.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    replicas: RuntimeParameter[int] = Field(default=1, ge=1)
    cpus: RuntimeParameter[float | None] = Field(default=None, ge=0)
    gpus: RuntimeParameter[float | None] = Field(default=None, ge=0)
    memory: RuntimeParameter[int | None] = Field(default=None, ge=0)
    resources: RuntimeParameter[dict[str, float] | None] = None
    accelerator_type: RuntimeParameter[str | None] = None
