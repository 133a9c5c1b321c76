"""Before the first batch: does every node that may run a replica reach the driver's cache root?

Found out by trying: the driver leaves an object in the root, each node reads it and writes an answer, which
the driver reads. A node that joins later tells by failing, as a replica on it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from distill_ray import __version__
from distill_ray.cache.root_probe import (
    RootProbe,
    answer_probe,
    leave_probe,
    remedy,
    remove_probe,
    wrong_answers,
)
from distill_ray.engine.on_ray.each_node import RayNode, Reply, ask_each, living_nodes, own_node
from distill_ray.engine.on_ray.placement import may_run_on
from distill_ray.errors import ClusterError, StorageError
from distill_ray.resources import StepResources
from distill_ray.storage import Storage

CHECK_SECONDS = 180.0
"""How long nodes have to answer: clients of stores try for about a minute before they give up."""

_LISTED = 10

_REACHED: set[tuple[str, str]] = set()
"""Roots, and the nodes from which they were reached: asked once in a process."""


def check_nodes(storage: Storage, steps: Mapping[str, StepResources]) -> None:
    """Refuse a cache root that a node which may run one of these steps cannot read and write.

    A cluster of one node, which is the driver's own, is not asked: it sees what the driver sees.

    Args:
        storage: the root.
        steps: the steps that run, and what each of their replicas needs.

    Raises:
        StorageError: a node cannot, or the driver itself; names the nodes, what is wrong, and what to do.
        ClusterError: a node has another distill_ray, which may compute something else under the same name.
    """
    nodes = [node for node in living_nodes() if _may_run(node, steps)]
    if all(node.id == own_node() for node in nodes):
        return
    root = repr(storage)  # all roots, where there are several
    nodes = [node for node in nodes if (root, node.id) not in _REACHED]
    replies = probe_nodes(storage, nodes)
    problems = {reply.node: reply.error for reply in replies if reply.error}
    if problems:
        raise StorageError(_refusal(storage, problems, len(nodes)))
    others = {reply.node: str(reply.result) for reply in replies if reply.result != __version__}
    if others:
        raise ClusterError(
            f"The driver has distill_ray {__version__}; nodes that may run a step have another one:"
            f"{_listed(others)}\nInstall the same everywhere, or ship it with the job (`distill-ray submit`)."
        )
    _REACHED.update((root, node.id) for node in nodes)


def probe_nodes(storage: Storage, nodes: Iterable[RayNode]) -> list[Reply[str]]:
    """Have each node read and write the root: the replies of those that cannot have an error.

    The result of the others is the version of their distill_ray.

    Raises:
        StorageError: the driver itself cannot.
    """
    asked = list(nodes)
    if not asked:
        return []
    probe = leave_probe(storage)
    names = [node.id for node in asked]
    try:
        replies = ask_each(asked, _answer, lambda node: (probe, node.id), seconds=CHECK_SECONDS)
        told = [(reply.node, *(reply.result or ("", reply.error))) for reply in replies]
        wrong = wrong_answers(probe, [node.id for node, _, problem in told if not problem])
        return [Reply(node, version, problem or wrong.get(node.id, "")) for node, version, problem in told]
    finally:
        remove_probe(probe, names)


def _answer(probe: RootProbe, name: str) -> tuple[str, str]:
    """Say which distill_ray this node has, and what hinders it; nothing for nothing.

    Plain texts: an error may fail to be unpickled, and so may what another version knows.
    """
    try:
        answer_probe(probe, name)
    except Exception as error:
        return __version__, str(error)
    return __version__, ""


def _may_run(node: RayNode, steps: Mapping[str, StepResources]) -> bool:
    return any(may_run_on(node.resources, resources) for resources in steps.values())


def _refusal(storage: Storage, problems: Mapping[RayNode, str], asked: int) -> str:
    return (
        f"The cache root {storage.url} cannot be used from {len(problems):,} of the {asked:,} nodes that may "
        f"run a step:{_listed(problems)}\n{remedy(storage.url)} Node by node: "
        f"`distill-ray doctor --cache-dir {storage.url} --address ADDRESS`."
    )


def _listed(nodes: Mapping[RayNode, str]) -> str:
    lines = "".join(f"\n  {node}: {what}" for node, what in list(nodes.items())[:_LISTED])
    return f"{lines}\n  and {len(nodes) - _LISTED:,} more" if len(nodes) > _LISTED else lines
