"""The steps of a plan beside those of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from distill_ray.cache.paths import FunctionId
from distill_ray.cache.records import LastRuns, RunRecord, StepRecord
from distill_ray.explain.comparison import Comparison, StepNow, match_steps
from distill_ray.steps.signing import StepFunction

Edges = Mapping[str, tuple[str, ...]]


def record(class_name: str, function: str, above: tuple[str, ...], keys: Mapping[str, str]) -> StepRecord:
    key = f"{function}({','.join(keys[source] for source in above)})"
    return StepRecord(FunctionId(class_name, function), str(hash(key)), above)


def steps(edges: Edges, **functions: str) -> dict[str, StepRecord]:
    """A step for each name, of a class named like it, with another function where one is given."""
    made: dict[str, StepRecord] = {}
    for name, above in edges.items():
        keys = {source: made[source].output_key for source in above}
        made[name] = record(name.rstrip("0123456789"), functions.get(name, "as before"), above, keys)
    return made


def run_of(records: Mapping[str, StepRecord]) -> RunRecord:
    return RunRecord("pipeline", "run-1", records)


def now_of(records: Mapping[str, StepRecord]) -> dict[str, StepNow]:
    signed = StepFunction("", "", {}, {})
    return {name: StepNow(each, signed) for name, each in records.items()}


CHAIN: Edges = {"load": (), "ask": ("load",), "judge": ("ask",)}


def test_a_step_is_what_had_its_name_and_class() -> None:
    assert match_steps(now_of(steps(CHAIN)), run_of(steps(CHAIN))) == {name: name for name in CHAIN}


def test_a_renamed_step_is_known_by_its_class_and_its_place() -> None:
    renamed = {**steps({"load": (), "ask1": ("load",), "judge": ("ask1",)})}
    matched = match_steps(now_of(renamed), run_of(steps(CHAIN)))
    assert matched == {"load": "load", "ask1": "ask", "judge": "judge"}


def test_of_two_equal_places_each_is_taken_once() -> None:
    before = run_of(steps({"load": (), "ask1": ("load",), "ask2": ("load",)}))
    now = now_of(steps({"load": (), "ask8": ("load",), "ask9": ("load",), "ask10": ("load",)}))
    assert match_steps(now, before) == {"load": "load", "ask8": "ask1", "ask9": "ask2"}


def test_another_class_under_the_name_is_another_step() -> None:
    before = steps(CHAIN)
    before["ask"] = StepRecord(FunctionId("Other", "f"), "k", ("load",))
    assert "ask" not in match_steps(now_of(steps(CHAIN)), run_of(before))


def test_the_run_that_finished_comes_before_the_one_that_only_began() -> None:
    finished, latest = steps(CHAIN, ask="finished"), steps(CHAIN, ask="begun")
    comparison = Comparison(now_of(steps(CHAIN)), LastRuns(run_of(latest), run_of(finished)))
    before = comparison.before("ask")
    assert before is not None
    assert before.function.signature == "finished"


def test_upstream_names_the_steps_that_changed_and_not_those_between() -> None:
    edges = {**CHAIN, "filter": ("judge",)}
    comparison = Comparison(now_of(steps(edges, load="new")), LastRuns(None, run_of(steps(edges))))
    reason = comparison.upstream("filter", {})
    assert reason is not None
    assert reason.steps == ("load",)


def test_a_step_that_is_new_above_is_named() -> None:
    between = {"load": (), "clean": ("load",), "ask": ("clean",), "judge": ("ask",)}
    comparison = Comparison(now_of(steps(between)), LastRuns(None, run_of(steps(CHAIN))))
    reason = comparison.upstream("judge", {})
    assert reason is not None
    assert reason.text == "'clean' (new here)"


def test_many_changed_steps_above_are_counted() -> None:
    edges: dict[str, tuple[str, ...]] = {"load": (), **{f"ask{n}": ("load",) for n in range(9)}}
    edges["join"] = tuple(name for name in edges if name != "load")
    changed = {f"ask{n}": "new" for n in range(9)}
    comparison = Comparison(now_of(steps(edges, **changed)), LastRuns(None, run_of(steps(edges))))
    reason = comparison.upstream("join", {})
    assert reason is not None
    assert reason.text.endswith(" and 6 more")
    assert len(reason.steps) == 9


def test_the_many_ways_through_a_ladder_are_not_gone_one_by_one() -> None:
    edges: dict[str, tuple[str, ...]] = {"load": ()}
    for rung, after in pairwise(range(41)):
        above = ("load",) if rung == 0 else (f"left{rung}", f"right{rung}")
        edges |= {f"left{after}": above, f"right{after}": above}
    comparison = Comparison(now_of(steps(edges, load="new")), LastRuns(None, run_of(steps(edges))))
    reason = comparison.upstream("left40", {})
    assert reason is not None
    assert reason.steps == ("load",)


def test_another_limit_is_a_parameter_though_the_function_is_the_same() -> None:
    records = steps(CHAIN)
    before = {**records, "ask": replace(records["ask"], limit=32, output_key="32")}
    now = {**records, "ask": replace(records["ask"], limit=64, output_key="64")}
    now["judge"] = replace(now["judge"], output_key="another")
    comparison = Comparison(now_of(now), LastRuns(None, run_of(before)))
    reason = comparison.other_units("ask")
    assert reason is not None
    assert str(reason) == "CONFIG: max_new_tokens: 32 -> 64"
    above = comparison.upstream("judge", {})
    assert above is not None
    assert above.steps == ("ask",)


def test_another_batch_size_is_a_parameter_where_batches_are_units() -> None:
    records = steps(CHAIN)
    before = {**records, "ask": replace(records["ask"], batch_size=50, output_key="50")}
    now = {**records, "ask": replace(records["ask"], batch_size=20, output_key="20")}
    reason = Comparison(now_of(now), LastRuns(None, run_of(before))).other_units("ask")
    assert str(reason) == "CONFIG: input_batch_size: 50 -> 20"
    of_rows = Comparison(now_of(records), LastRuns(None, run_of(before)))
    assert of_rows.other_units("ask") is None, "that it has become row-wise is what changed"
