"""The stages that load groups make of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.errors import ParameterError
from distill_ray.graph import Graph, stages_of
from distill_ray.steps import KeepColumns, LoadDataFromDicts
from distill_ray.steps.base import BaseStep


def graph_of(**predecessors: Sequence[str]) -> Graph:
    steps: dict[str, BaseStep] = {
        name: KeepColumns(name=name, columns=["n"]) if above else LoadDataFromDicts(name=name, data=[])
        for name, above in predecessors.items()
    }
    return Graph.of(steps, predecessors)


CHAIN = graph_of(a=[], b=["a"], c=["b"], d=["c"])


def stages(graph: Graph, load_groups: Any) -> list[set[str]]:
    numbers = stages_of(graph, load_groups)
    return [{name for name in numbers if numbers[name] == n} for n in range(max(numbers.values()) + 1)]


def test_steps_in_no_group_run_with_those_they_follow() -> None:
    assert stages(CHAIN, [["b", "c"]]) == [{"a"}, {"b", "c"}, {"d"}]
    assert stages(CHAIN, [["c"]]) == [{"a", "b"}, {"c"}, {"d"}]
    assert stages(CHAIN, [["d"], ["a"]]) == [{"a"}, {"b", "c"}, {"d"}], "the graph says what comes first"


def test_steps_themselves_may_stand_for_their_names() -> None:
    assert stages(CHAIN, [[CHAIN.steps["b"], "c"]]) == [{"a"}, {"b", "c"}, {"d"}]


def test_sequential_execution_is_a_stage_for_each_step() -> None:
    assert stages(CHAIN, "sequential_step_execution") == [{"a"}, {"b"}, {"c"}, {"d"}]


def test_a_group_waits_for_all_that_any_of_it_needs() -> None:
    graph = graph_of(a=[], left=["a"], right=["a"], below=["right"])
    assert stages(graph, [["left", "below"]]) == [{"a", "right"}, {"left", "below"}]


@pytest.mark.parametrize(
    ("load_groups", "message"),
    [
        ([["a", "x"]], "Group 0 of load_groups names step 'x', but the steps are: 'a', 'b', 'c', 'd'"),
        ([["a"], ["b", "a"]], "Step 'a' is in the groups 0 and 1 of load_groups"),
        ([["a", "c"]], r"'c' takes rows from 'b', which is in another stage.*Put 'b' into their group"),
        ([[["a"]]], r"Group 0 of load_groups names step \['a'\], but the steps are"),
        (["a"], "Group 0 of load_groups is no list of steps but 'a'"),
        ("", "load_groups is a list of lists of steps"),
        ("one_by_one", "load_groups is a list of lists of steps, or 'sequential_step_execution'"),
    ],
)
def test_groups_that_cannot_be_are_errors(load_groups: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        stages_of(CHAIN, load_groups)


@settings(deadline=None)
@given(st.data())
def test_no_step_runs_in_a_stage_before_one_whose_rows_it_takes(data: st.DataObject) -> None:
    names = [f"s{n}" for n in range(data.draw(st.integers(1, 7)))]
    above = {
        name: data.draw(st.lists(st.sampled_from(names[:n]), unique=True, max_size=3)) if n else []
        for n, name in enumerate(names)
    }
    graph = graph_of(**above)
    group_of = {name: data.draw(st.integers(0, 3)) for name in names}
    groups = [[name for name in names if group_of[name] == number] for number in range(3)]
    try:
        numbers = stages_of(graph, groups)
    except ParameterError:
        return
    assert numbers.keys() == set(names)
    assert all(numbers[p] <= numbers[name] for name in names for p in above[name])
    for group in groups:
        assert len({numbers[name] for name in group}) <= 1
        together = {name for name in names if group and numbers[name] == numbers[group[0]]}
        assert not group or together == set(group), "nothing else runs with a group"
