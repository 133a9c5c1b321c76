"""The stages that a user's `load_groups` make of a graph: a stage begins when the one before has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from distill_ray.errors import ParameterError
from distill_ray.graph.dag import Graph, listed
from distill_ray.steps.base import BaseStep, label_of

LoadGroups: TypeAlias = Sequence[Sequence[str | BaseStep]] | Literal["sequential_step_execution"]

SEQUENTIAL = "sequential_step_execution"
"""Instead of groups: each step by itself."""


def stages_of(graph: Graph, load_groups: LoadGroups) -> dict[str, int]:
    """Say for each step the number of its stage.

    The steps of a group make up a stage. Those in no group run as early as they can, as many together as
    follow each other without a group between them.

    Raises:
        ParameterError: a step is unknown or in two groups, or the steps of a group cannot run at the same
            time, since one of them waits for a step outside that waits for another of them.
    """
    one_by_one = load_groups == SEQUENTIAL
    groups = [[name] for name in graph.order()] if one_by_one else _groups(graph, load_groups)
    stages: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(graph.steps):
        loose = _loose(graph, groups, placed)
        stage = loose or _next_group(graph, groups, placed)
        stages.append(stage)
        placed.update(stage)
    return {name: number for number, stage in enumerate(stages) for name in stage}


def _groups(graph: Graph, load_groups: Any) -> list[list[str]]:
    if isinstance(load_groups, str) or not isinstance(load_groups, Sequence):
        raise ParameterError(
            f"load_groups is a list of lists of steps, or '{SEQUENTIAL}', not {load_groups!r:.200}."
        )
    groups: list[list[str]] = []
    group_of: dict[str, int] = {}
    for number, given in enumerate(load_groups):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise ParameterError(f"Group {number} of load_groups is no list of steps but {given!r:.200}.")
        names = [label_of(step) if isinstance(step, BaseStep) else step for step in given]
        for name in names:
            if not isinstance(name, str) or name not in graph.steps:
                raise ParameterError(
                    f"Group {number} of load_groups names step {name!r:.200}, but the steps are: "
                    f"{listed(graph.steps)}."
                )
            if name in group_of:
                raise ParameterError(
                    f"Step '{name}' is in the groups {group_of[name]} and {number} of load_groups: a step "
                    "runs in one stage."
                )
            group_of[name] = number
        groups.append(names)
    return groups


def _loose(graph: Graph, groups: list[list[str]], placed: set[str]) -> list[str]:
    """Steps in no group that need only what ran before, and each other."""
    grouped = {name for group in groups for name in group}
    loose: list[str] = []
    for name in graph.order():
        here = placed.union(loose)
        if name not in grouped and name not in here and here.issuperset(graph.predecessors(name)):
            loose.append(name)
    return loose


def _next_group(graph: Graph, groups: list[list[str]], placed: set[str]) -> list[str]:
    """The next group, in the graph's order, all of whose rows come from what ran before, or from itself."""
    order = graph.order()
    waiting = [group for group in groups if group and not placed.issuperset(group)]
    for group in sorted(waiting, key=lambda group: min(map(order.index, group))):
        if all(placed.union(group).issuperset(graph.predecessors(name)) for name in group):
            return group
    group = waiting[0]
    first, between = next(
        (name, above)
        for name in group
        for above in graph.predecessors(name)
        if above not in placed and above not in group
    )
    raise ParameterError(
        f"The steps {listed(group)} of one load group cannot run at the same time: '{first}' takes rows from "
        f"'{between}', which is in another stage and has to wait for one of them. Put '{between}' into their "
        "group, or part the group."
    )
