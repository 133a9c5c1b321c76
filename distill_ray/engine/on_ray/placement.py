"""What a replica asks of the cluster, and whether the cluster has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill_ray.errors import ResourceError
from distill_ray.resources import StepResources

Amounts = Mapping[str, float]
"""Amounts of resources by Ray's names: ``{"CPU": 2, "GPU": 0.5}``."""

_LISTED = 4
"""Nodes that are named in a message."""


def actor_options(resources: StepResources, calls_at_once: int = 1) -> dict[str, Any]:
    """What a replica asks of Ray. Ray itself never restarts an actor: the driver decides what then."""
    options: dict[str, Any] = {
        # Without num_cpus Ray would want a whole CPU to place the actor.
        "num_cpus": resources.cpus or 0,
        "num_gpus": resources.gpus or 0,
        "max_restarts": 0,
        "max_task_retries": 0,
    }
    if calls_at_once > 1:  # else its calls are on the main thread, which some libraries insist on
        options["max_concurrency"] = calls_at_once
    if resources.memory:
        options["memory"] = resources.memory
    if resources.resources:
        options["resources"] = dict(resources.resources)
    if resources.accelerator_type:
        options["accelerator_type"] = resources.accelerator_type
    return options


def node_resources() -> list[Amounts]:
    """What each living node of the cluster has in all."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def wanted(resources: StepResources) -> Amounts:
    """What one replica declares, by Ray's names."""
    return resources.needs


def check_placeable(step: str, resources: StepResources, nodes: Sequence[Amounts]) -> None:
    """Refuse a replica that no node of the cluster could ever hold: Ray would wait for ever.

    Raises:
        ResourceError: names what the step asks for and what the nodes have.
    """
    asked = wanted(resources)
    if is_placeable(resources, nodes):
        return
    who_has = "the nodes do not have together" if resources.across_nodes else "no node of the cluster has"
    raise ResourceError(
        f"Step '{step}' declares {_spoken(asked)} for each replica, which {who_has}: "
        f"{_what_nodes_have(asked, nodes)}. Lower `resources` of the step, or add a node that has them. "
        "Where an autoscaler adds nodes, say how many seconds to wait: run(wait_for_resources=1800), or "
        "DISTILL_RAY_WAIT_FOR_RESOURCES=1800."
    )


def _what_nodes_have(asked: Amounts, nodes: Sequence[Amounts]) -> str:
    """Of what is asked for; nodes that have the same are named together."""
    alike: dict[str, list[str]] = {}
    for node in nodes:
        alike.setdefault(_spoken({name: node.get(name, 0) for name in asked}), []).append(_address(node))
    return "; ".join(f"{_some(addresses)}: {have}" for have, addresses in alike.items()) or "it has none"


def _spoken(amounts: Amounts) -> str:
    return ", ".join(f"{name} {amount:.12g}" for name, amount in amounts.items())


def _address(node: Amounts) -> str:
    """The node's IP address: Ray makes it a resource of the node."""
    names = (name.removeprefix("node:") for name in node if name.startswith("node:"))
    return next((name for name in names if not name.startswith("__")), "a node")


def _some(addresses: Sequence[str]) -> str:
    listed = ", ".join(dict.fromkeys(addresses[:_LISTED]))
    if len(addresses) == 1:
        return listed
    return f"{len(addresses)} nodes ({listed}{', ...' if len(addresses) > _LISTED else ''})"


def is_placeable(resources: StepResources, nodes: Sequence[Amounts]) -> bool:
    """Whether some node, or several together, could hold a replica, if they held nothing else."""
    return fit_together([resources], nodes)


def may_run_on(node: Amounts, resources: StepResources) -> bool:
    """Whether a replica's process could run on the node."""
    return _holds(node, resources.bundles[0])


def fit_together(replicas: Sequence[StepResources], nodes: Sequence[Amounts]) -> bool:
    """Whether all replicas find room at the same time on empty nodes, each on the first that has room."""
    free = [dict(node) for node in nodes]
    for asked in (bundle for resources in replicas for bundle in resources.bundles):
        node = next((node for node in free if _holds(node, asked)), None)
        if node is None:
            return False
        for name, amount in asked.items():
            node[name] -= amount
    return True


def _holds(node: Amounts, asked: Amounts) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in asked.items())
