"""What runs in the place of a task: one step that renders, one that asks the model, and one that reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from distill_ray.errors import GraphError
from distill_ray.graph.dag import Graph
from distill_ray.graph.routing import Routing
from distill_ray.models.llm import arguments_of
from distill_ray.steps.base import ACTIVE_REGISTRY, BaseStep
from distill_ray.steps.tasks.parts import ReadAnswers, parts_of
from distill_ray.steps.tasks.task import Task


def expand(graph: Graph, signatures: Mapping[str, str]) -> Graph:
    """Return the graph of what runs: as users' graphs, with three steps in the place of each task.

    The last of them has the task's name; the others are called ``<task>/request`` and ``<task>/answer``.
    Tasks of one signature on the same rows ask for different samples, so that each has answers of its own;
    with a seed they ask for the same ones.

    Args:
        graph: the user's graph.
        signatures: the signature of each task, by its name.

    Raises:
        GraphError: a step of the user's has a name that one of these steps needs.
    """
    steps: dict[str, BaseStep] = {}
    predecessors: dict[str, tuple[str, ...]] = {}
    samples_before: Counter[tuple[str, ...]] = Counter()
    token = ACTIVE_REGISTRY.set(None)  # the steps belong to the run, not to the pipeline
    try:
        for name, step in graph.steps.items():
            sources = graph.predecessors(name)
            if not isinstance(step, Task) or not is_expanded(step):
                steps[name], predecessors[name] = step, sources
                continue
            equal = (signatures[name], *sources)
            request, answer = f"{name}/request", f"{name}/answer"
            if taken := graph.steps.keys() & {request, answer}:
                raise GraphError(f"Rename step '{min(taken)}': a part of task '{name}' has that name.")
            parts = parts_of(step, name, first_sample=samples_before[equal])
            steps.update(zip((request, answer, name), parts, strict=True))
            predecessors.update({request: sources, answer: (request,), name: (*sources, request, answer)})
            if arguments_of(step.llm).get("seed") is None:
                samples_before[equal] += step.num_generations
    finally:
        ACTIVE_REGISTRY.reset(token)
    return Graph.of(
        steps, predecessors, {name: _expanded(each, steps) for name, each in graph.routings.items()}
    )


def _expanded(routing: Routing, steps: Mapping[str, BaseStep]) -> Routing:
    """The same routing: a task's rows are given to the step that renders them, and to the one that reads."""
    requests = {f"{name}/request": name for name in routing.steps if isinstance(steps[name], ReadAnswers)}
    return Routing(routing.function, {**routing.branches, **requests})


def owner_of(name: str, graph: Graph) -> str:
    """The step of the user's graph that a step of `expand` is, or is a part of."""
    return name if name in graph.steps else name.rpartition("/")[0]


def is_expanded(task: Task) -> bool:
    """Whether a task runs as three steps: not where its class does the asking itself.

    Nor where the model is excluded from the signature: its answers must not be taken for another's.
    """
    asks_itself = type(task).process is not Task.process or task.is_global
    return not asks_itself and "llm" not in task.exclude_from_signature
