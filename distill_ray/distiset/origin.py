"""The pipeline that a Distiset came from, as far as its readers are told: names only, no parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from distill_ray.graph import Graph
from distill_ray.models.llm import LLM


class ModelOrigin(BaseModel):
    """A model that a step asked.

    Attributes:
        class_name: the bare name of its class.
        name: what it is called, without folders of this machine or passwords in a URL; may be empty.
    """

    class_name: str
    name: str = ""


class StepOrigin(BaseModel):
    """A step of the pipeline.

    Attributes:
        name: the step's name.
        class_name: the bare name of its class.
        inputs: the steps that flow into it.
        models: the models that it asks.
    """

    name: str
    class_name: str
    inputs: list[str] = []
    models: list[ModelOrigin] = []


class PipelineOrigin(BaseModel):
    """The pipeline.

    Attributes:
        name: the pipeline's name.
        description: what its author says about it; may be empty.
        steps: in an order in which each comes after its inputs.
    """

    name: str
    description: str = ""
    steps: list[StepOrigin] = []

    @classmethod
    def of(cls, graph: Graph, name: str, description: str | None = None) -> PipelineOrigin:
        """Say what a reader may know of a pipeline."""
        steps = [
            StepOrigin(
                name=step,
                class_name=type(graph.steps[step]).__name__,
                inputs=list(graph.predecessors(step)),
                models=[_model(llm) for llm in _llms(graph.steps[step])],
            )
            for step in graph.order()
        ]
        return cls(name=name, description=description or "", steps=steps)


def _llms(value: Any) -> Iterator[LLM]:
    """The models that a parameter holds, however deep; those inside another model are its own business."""
    if isinstance(value, LLM):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _llms(getattr(value, name))
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _llms(item)


def _model(llm: LLM) -> ModelOrigin:
    try:
        name = str(llm.model_name)
    except Exception:  # a model of a user's own may know its name only once it is loaded
        name = ""
    if "://" in name:
        parts = urlsplit(name)
        name = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    elif os.path.isabs(name) or name.startswith("~"):  # noqa: PTH117 - text that may be a path
        name = PurePath(name).name
    return ModelOrigin(class_name=type(llm).__name__, name=name)
