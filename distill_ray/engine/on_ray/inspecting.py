"""What each node of a cluster says of itself, for `distill-ray doctor`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distill_ray.engine.inspection import Inspection, inspect_here
from distill_ray.engine.on_ray.connection import connect
from distill_ray.engine.on_ray.each_node import RayNode, ask_each, living_nodes
from distill_ray.engine.on_ray.preflight import CHECK_SECONDS, probe_nodes
from distill_ray.storage import Storage

_CLOCK_SECONDS = 20.0


@dataclass(frozen=True)
class NodeInspection:
    """A node, and what it says.

    Attributes:
        node: which one.
        found: what it says; None where it did not answer.
        error: why it cannot use the root that this process uses; empty where it can.
        clock: seconds by which its clock is ahead of ours; None where it did not say.
    """

    node: RayNode
    found: Inspection | None
    error: str
    clock: float | None


def inspect_cluster(address: str, storage: Storage, *, shared: bool) -> list[NodeInspection]:
    """Join a cluster, and have each of its nodes look at itself and at the root.

    Args:
        address: of the cluster.
        storage: the root, or several, of which all but the first are only read.
        shared: whether to see that all nodes reach the very root that this process does, which must be able
            to use it.

    Raises:
        ClusterError: the cluster cannot be joined.
    """
    connect(address)
    nodes = living_nodes()
    apart = {each.node.id: each.error for each in probe_nodes(storage, nodes)} if shared else {}
    replies = ask_each(nodes, inspect_here, lambda _: (storage,), seconds=CHECK_SECONDS)
    clocks = _clocks([reply.node for reply in replies if not reply.error])
    return [
        NodeInspection(
            node=reply.node,
            found=reply.result,
            error=reply.error or (reply.result.error if reply.result else "") or apart.get(reply.node.id, ""),
            clock=clocks.get(reply.node.id),
        )
        for reply in replies
    ]


def _clocks(nodes: list[RayNode]) -> dict[str, float]:
    """How far each node's clock is ahead: exact to half the time that the answer took."""
    asked = time.time()
    replies = ask_each(nodes, _time_there, seconds=_CLOCK_SECONDS)
    here = (asked + time.time()) / 2
    return {reply.node.id: reply.result - here for reply in replies if reply.result is not None}


def _time_there() -> float:
    return time.time()
