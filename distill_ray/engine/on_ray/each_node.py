"""Asking every node of the cluster something: a small task on each, all at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distill_ray.engine.scheduling.room import Amounts

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class RayNode:
    """A node of the cluster.

    Attributes:
        id: Ray's.
        address: its IP address.
        hostname: what it calls itself.
        resources: what it has in all.
    """

    id: str
    address: str
    hostname: str
    resources: Amounts = field(hash=False)

    @property
    def label(self) -> str:
        """Its name where there is little room."""
        return f"{self.address} {self.id[:8]}"

    def __str__(self) -> str:
        return f"{self.hostname} ({self.address}, node {self.id[:12]})"


@dataclass(frozen=True)
class Reply(Generic[_Result]):
    """What came back from a node.

    Attributes:
        node: the node.
        result: what the function gave there; None where it did not come to an end.
        error: why not; empty where it did.
    """

    node: RayNode
    result: _Result | None = None
    error: str = ""


def living_nodes() -> list[RayNode]:
    """The nodes that are alive."""
    return [
        RayNode(node["NodeID"], node["NodeManagerAddress"], node["NodeManagerHostname"], node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def own_node() -> str:
    """The id of the node that this process is on; empty where it is on none."""
    from ray.util.client import ray as client

    if client.is_connected():  # over ray:// this process is on no node
        return ""
    return str(ray.get_runtime_context().get_node_id())


def ask_each(
    nodes: Iterable[RayNode],
    function: Callable[..., _Result],
    arguments: Callable[[RayNode], Sequence[Any]] = lambda _: (),
    *,
    seconds: float,
) -> list[Reply[_Result]]:
    """Call a function of ours in a process of each node. Nodes that die meanwhile are left out.

    Args:
        nodes: which ones.
        function: a function of a module, which the node imports.
        arguments: of the call on a node.
        seconds: how long to wait in all.
    """
    asked: Any = ray.remote(num_cpus=0, max_retries=2)(function)
    calls = {
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            *arguments(node)
        ): node
        for node in nodes
    }
    if not calls:
        return []
    done, late = ray.wait(list(calls), num_returns=len(calls), timeout=seconds)
    replies = [_reply(calls[call], call) for call in done]
    for call in late:
        ray.cancel(call, force=True)
        replies.append(Reply(calls[call], error=f"it gave no answer within {seconds:.0f} s"))
    if any(reply.error for reply in replies):
        living = {node.id for node in living_nodes()}
        replies = [reply for reply in replies if not reply.error or reply.node.id in living]
    order = {node.id: position for position, node in enumerate(calls.values())}
    return sorted(replies, key=lambda reply: order[reply.node.id])


def _reply(node: RayNode, call: Any) -> Reply[Any]:
    try:
        return Reply(node, ray.get(call))
    except Exception as error:
        return Reply(node, error=_why(error))


def _why(error: Exception) -> str:
    """What went wrong on the node, without Ray's words around it."""
    cause = getattr(error, "cause", None) or error
    if "No module named 'distill_ray" in str(cause):
        return (
            "distill_ray is not installed there: install it on all nodes, or ship it with the job "
            "(`distill-ray submit`)"
        )
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return f"{type(cause).__name__}: {lines[-1].strip()}"
