"""What a replica asks of the cluster, and whether the cluster has it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distill_ray.engine.scheduling.room import Amounts, fit_together, holds
from distill_ray.errors import ResourceError
from distill_ray.resources import StepResources

_log = logging.getLogger(__name__)

_LISTED = 4
"""Nodes that are named in a message."""


_ACCELERATOR = "accelerator_type:"


def actor_options(resources: StepResources, calls_at_once: int = 1, node: str = "") -> dict[str, Any]:
    """What a replica asks of Ray, on a node where one was chosen.

    Ray itself never restarts an actor: the driver decides what then.
    """
    options = options_for(resources.needs)
    if calls_at_once > 1:  # else its calls are on the main thread, which some libraries insist on
        options["max_concurrency"] = calls_at_once
    if node:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    return options


def options_for(needs: Amounts) -> dict[str, Any]:
    """What an actor that holds so much asks of Ray."""
    custom = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU", "memory")}
    kinds = [name.removeprefix(_ACCELERATOR) for name in custom if name.startswith(_ACCELERATOR)]
    options: dict[str, Any] = {
        # Without num_cpus Ray would want a whole CPU to place the actor.
        "num_cpus": needs.get("CPU", 0),
        "num_gpus": needs.get("GPU", 0),
        "resources": {name: n for name, n in custom.items() if not name.startswith(_ACCELERATOR)},
        "max_restarts": 0,
        "max_task_retries": 0,
    }
    if "memory" in needs:
        options["memory"] = needs["memory"]
    if kinds:
        options["accelerator_type"] = kinds[0]
    return options


def node_resources() -> dict[str, Amounts]:
    """What each living node of the cluster has in all, by the node's id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def check_placeable(step: str, resources: StepResources, nodes: Sequence[Amounts]) -> None:
    """Refuse a replica that no node of the cluster could ever hold: Ray would wait for ever.

    Raises:
        ResourceError: names what the step asks for and what the nodes have.
    """
    asked = resources.needs
    if is_placeable(resources, nodes):
        return
    who_has = "the nodes do not have together" if resources.across_nodes else "no node of the cluster has"
    raise ResourceError(
        f"Step '{step}' declares {_spoken(asked)} for each replica, which {who_has}: "
        f"{_what_nodes_have(asked, nodes)}. Lower `resources` of the step, or add a node that has them. "
        "Where an autoscaler adds nodes, say how many seconds to wait: run(wait_for_resources=1800), or "
        "DISTILL_RAY_WAIT_FOR_RESOURCES=1800."
    )


def say_if_short(step: str, resources: StepResources, nodes: Mapping[str, Amounts]) -> None:
    """Log that a step goes on with fewer replicas than its fewest: no more have room at the same time."""
    waits = not is_placeable(resources, nodes.values())  # with no replica at all, for a node to come
    if not waits and not fit_together([resources.bundles] * resources.fewest, nodes):
        _log.warning(
            "Step '%s' is to have %d replicas at least, which the cluster has no room for even if it holds "
            "nothing else: it goes on with those there are",
            step,
            resources.fewest,
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


def is_placeable(resources: StepResources, nodes: Iterable[Amounts]) -> bool:
    """Whether some node, or several together, could hold a replica, if they held nothing else."""
    return fit_together([resources.bundles], {str(number): node for number, node in enumerate(nodes)})


def may_run_on(node: Amounts, resources: StepResources) -> bool:
    """Whether a replica's process could run on the node."""
    return holds(node, resources.bundles[0])
