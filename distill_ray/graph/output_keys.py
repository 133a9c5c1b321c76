"""What names the complete output of a step: a chain of digests from the sources down to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from distill_ray.cache.paths import FunctionId
from distill_ray.graph.dag import Graph
from distill_ray.graph.routing import SignedRouting
from distill_ray.signature.encode import digest
from distill_ray.steps.base import BaseStep, Step


def output_limit(step: BaseStep) -> int | None:
    """The bound on a step's units that is not signed, if it has one: see `Step.output_limit`."""
    return step.output_limit if isinstance(step, Step) else None


def batch_size(step: BaseStep) -> int | None:
    """Rows in each batch of a step whose units are batches: what it gives may depend on them."""
    if not isinstance(step, Step) or step.row_wise or step.is_global:
        return None
    return step.input_batch_size


def output_keys(
    graph: Graph, functions: Mapping[str, FunctionId], routings: Mapping[str, SignedRouting] | None = None
) -> dict[str, str]:
    """What names each step's output: its function, its inputs' output keys, and which of several equal ones.

    Also what is not signed and shows in it: the limit of its units, and the size of batches that are units.
    Two steps of one function on the same input stay two: a model that is asked twice answers twice.
    An input that is routed is another one for each way to route it, and for each step that it is routed to.
    """
    keys: dict[str, str] = {}
    equal_before: Counter[tuple[str, ...]] = Counter()
    for name in graph.order():
        signature = functions[name].signature
        inputs = [
            _routed(keys[source], routings, source, branch)
            if routings and (branch := graph.branch(source, name))
            else keys[source]
            for source in graph.predecessors(name)
        ]
        step = graph.steps[name]
        units = {"limit": output_limit(step), "batch_size": batch_size(step)}
        given = {key: value for key, value in units.items() if value is not None}
        equal = (signature, str(given), *inputs)
        keys[name] = digest({"function": signature, "inputs": inputs, "twin": equal_before[equal], **given})
        equal_before[equal] += 1
    return keys


def _routed(key: str, routings: Mapping[str, SignedRouting], source: str, branch: str) -> str:
    return digest({"routing": routings[source].key(key), "branch": branch})


def families(graph: Graph, functions: Mapping[str, FunctionId]) -> dict[str, str]:
    """What names each step together with its equals: its function, and the families of its inputs."""
    found: dict[str, str] = {}
    for name in graph.order():
        inputs = [found[source] for source in graph.predecessors(name)]
        found[name] = digest([functions[name].signature, inputs])
    return found
