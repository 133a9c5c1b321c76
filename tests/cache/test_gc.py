"""What a collection chooses: never what somebody needs, and as much as was asked for."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.gc import (
    PRIVATE_SECONDS,
    REPLACED,
    Choice,
    FunctionFacts,
    InUse,
    OutputFacts,
    PartFacts,
    Policy,
    choose,
    choose_named,
)
from distill_ray.cache.paths import FunctionId

NOW = 1_000_000_000.0
KEEP_ALL = Policy(NOW)
NOBODY = InUse()


def function_of(
    parts: list[PartFacts], outputs: list[OutputFacts], signature: str = "f", place: str = ""
) -> FunctionFacts:
    return FunctionFacts(place, FunctionId("Step", signature), tuple(parts), tuple(outputs))


def part(name: str, size: int = 100, age: float = 10.0, *, replaced: bool = False) -> PartFacts:
    return PartFacts(name, size, NOW - age, replaced)


def output(
    name: str, *parts: str, age: float = 10.0, broken: bool = False, private: bool = False
) -> OutputFacts:
    return OutputFacts(f"outputs/{name}.json", name, 1, NOW - age, parts, broken, private)


def gone(choice: Choice) -> set[str]:
    return {each.name for each in (*choice.outputs, *choice.parts)}


def test_without_a_policy_only_garbage_goes() -> None:
    facts = function_of(
        [part("used"), part("of a crashed run"), part("merged"), part("small", replaced=True)],
        [output("a", "used", age=1e9), output("b", "used", "absent", broken=True)],
    )
    assert gone(choose([facts], NOBODY, KEEP_ALL)) == {"small", "outputs/b.json"}


def test_an_output_gets_a_day_more_than_the_records_of_its_use_say() -> None:
    """Uses on one day are recorded once."""
    day = 24 * 3600.0
    ages = {"a": 30 * day, "b": 30.9 * day, "c": 31.1 * day}
    facts = function_of([], [output(name, age=age) for name, age in ages.items()])
    assert gone(choose([facts], NOBODY, Policy(NOW, older_than=30 * day))) == {"outputs/c.json"}
    hours = Policy(NOW, older_than=3600.0)
    assert gone(choose([function_of([], [output("a", age=3601.0)])], NOBODY, hours)) == {"outputs/a.json"}


def test_a_replaced_part_stays_while_an_output_rests_on_it() -> None:
    facts = function_of([part("small", replaced=True), part("merged")], [output("a", "small")])
    assert gone(choose([facts], NOBODY, KEEP_ALL)) == set()


def test_an_output_of_one_run_goes_long_after_it_and_leaves_its_units() -> None:
    facts = function_of(
        [part("x")],
        [output("new", "x", private=True), output("old", "x", age=PRIVATE_SECONDS + 1, private=True)],
    )
    assert gone(choose([facts], NOBODY, KEEP_ALL)) == {"outputs/old.json"}


def test_by_age_goes_what_was_not_used_and_nothing_that_another_output_rests_on() -> None:
    facts = function_of(
        [part("shared", age=99), part("own", age=99), part("loose", age=99), part("young", age=1)],
        [output("old", "shared", "own", age=50), output("new", "shared", age=5)],
    )
    choice = choose([facts], NOBODY, Policy(NOW, older_than=20))
    assert gone(choice) == {"outputs/old.json", "own", "loose"}
    assert choice.freed == 201


def test_what_has_no_known_age_is_never_too_old() -> None:
    facts = function_of([part("x", age=-math.inf)], [output("a", "x", age=-math.inf)])
    assert gone(choose([facts], NOBODY, Policy(NOW, older_than=0))) == set()


def test_by_size_what_was_used_longest_ago_goes_first_over_all_functions() -> None:
    one = function_of([part("1"), part("3")], [output("a", "1", age=40), output("c", "3", age=20)])
    two = function_of([part("2"), part("4")], [output("b", "2", age=30), output("d", "4", age=10)], "g")
    choice = choose([one, two], NOBODY, Policy(NOW, max_size=202))
    assert gone(choice) == {"outputs/a.json", "1", "outputs/b.json", "2"}
    assert (choice.kept, choice.over) == (202, 0)


def test_a_function_that_a_live_run_uses_is_left_as_it_is() -> None:
    facts = function_of([part("x", replaced=True)], [output("a", "x", age=99, broken=True)])
    choice = choose([facts], InUse(frozenset({"run"}), functions=frozenset({"f"})), Policy(NOW, 1, 0))
    assert choice == Choice(kept=101, held=101, over=101)


def test_where_a_live_run_does_not_say_what_it_uses_nothing_goes() -> None:
    facts = function_of([part("x", replaced=True)], [])
    assert gone(choose([facts], InUse(frozenset({"run"}), functions=None), KEEP_ALL)) == set()


def test_named_outputs_go_with_the_parts_that_are_theirs_alone() -> None:
    facts = function_of(
        [part("own"), part("shared"), part("loose")], [output("a", "own", "shared"), output("b", "shared")]
    )
    assert gone(choose_named([facts], NOBODY, {("", "outputs/a.json")}, "why")) == {"outputs/a.json", "own"}
    both = {("", "outputs/a.json"), ("", "outputs/b.json")}
    choice = choose_named([facts], NOBODY, both, "why")
    assert gone(choice) == {"outputs/a.json", "outputs/b.json", "own", "shared", "loose"}


def test_what_a_live_run_names_is_not_removed_by_hand_either() -> None:
    facts = function_of([part("x"), part("run-1-y")], [output("a", "x")])
    in_use = InUse(frozenset({"run-1"}), outputs=frozenset({"a"}))
    assert gone(choose_named([facts], in_use, {("", "outputs/a.json")}, "why")) == set()


names = st.sampled_from([f"{run}-{number}" for run in ("r1", "r2", "r3") for number in range(4)])
ages = st.one_of(st.just(-math.inf), st.integers(0, 100).map(float))


@st.composite
def functions(draw: st.DrawFn) -> FunctionFacts:
    parts = draw(st.dictionaries(names, st.tuples(st.integers(0, 50), ages, st.booleans()), max_size=8))
    outputs = draw(
        st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.sets(names, max_size=4), ages, st.booleans()))
    )
    signature = draw(st.sampled_from(["f", "g", "h"]))
    return function_of(
        [part(name, size, age, replaced=replaced) for name, (size, age, replaced) in parts.items()],
        [
            output(name, *rests, age=age, private=private, broken=not rests <= parts.keys())
            for name, (rests, age, private) in outputs.items()
        ],
        signature,
        draw(st.sampled_from(["", "scopes/x"])),
    )


in_uses = st.builds(
    InUse,
    runs=st.frozensets(st.sampled_from(["r1", "r2"])),
    outputs=st.frozensets(st.sampled_from("abc")),
    functions=st.one_of(st.none(), st.frozensets(st.sampled_from("fg"))),
)
policies = st.builds(
    Policy,
    now=st.just(NOW),
    older_than=st.one_of(st.none(), st.integers(0, 100).map(float)),
    max_size=st.one_of(st.none(), st.integers(0, 300)),
)
stocks = st.lists(functions(), max_size=4, unique_by=lambda facts: (facts.place, facts.function))


@given(stock=stocks, in_use=in_uses, policy=policies)
def test_nothing_that_a_kept_output_rests_on_ever_goes(
    stock: list[FunctionFacts], in_use: InUse, policy: Policy
) -> None:
    choice = choose(stock, in_use, policy)
    for facts in stock:
        mine = {
            each.name
            for each in (*choice.outputs, *choice.parts)
            if (each.place, each.function) == (facts.place, facts.function)
        }
        kept = [each for each in facts.outputs if each.path not in mine]
        assert not mine & {name for each in kept for name in each.parts}


@given(stock=stocks, in_use=in_uses, policy=policies)
def test_nothing_of_a_live_run_ever_goes(stock: list[FunctionFacts], in_use: InUse, policy: Policy) -> None:
    choice = choose(stock, in_use, policy)
    outputs = {(facts.place, facts.function, each.path): each for facts in stock for each in facts.outputs}
    for each in (*choice.outputs, *choice.parts):
        assert not in_use.uses(each.function.signature)
    for each in choice.outputs:
        assert outputs[each.place, each.function, each.name].output_key not in in_use.outputs
    named = {
        (facts.place, facts.function, name)
        for facts in stock
        for each in facts.outputs
        if each.output_key in in_use.outputs
        for name in each.parts
    }
    for each in choice.parts:
        assert not in_use.wrote(each.name)
        assert (each.place, each.function, each.name) not in named


@given(stock=stocks, in_use=in_uses, policy=policies)
def test_it_frees_what_is_asked_or_says_that_the_rest_is_in_use(
    stock: list[FunctionFacts], in_use: InUse, policy: Policy
) -> None:
    choice = choose(stock, in_use, policy)
    assert choice.kept + choice.freed == sum(facts.size for facts in stock)
    if policy.max_size is None:
        assert choice.over == 0
    else:
        assert choice.over == max(0, choice.kept - policy.max_size)
        assert not choice.over or choice.kept == choice.held


@given(stock=stocks, in_use=in_uses)
def test_without_a_policy_no_unit_is_lost(stock: list[FunctionFacts], in_use: InUse) -> None:
    choice = choose(stock, in_use, KEEP_ALL)
    assert {each.why for each in choice.parts} <= {REPLACED}


@given(stock=stocks, limit=st.integers(0, 300))
def test_what_goes_for_size_was_used_before_everything_that_stays(
    stock: list[FunctionFacts], limit: int
) -> None:
    garbage = gone_of(choose(stock, NOBODY, KEEP_ALL))
    went = gone_of(choose(stock, NOBODY, Policy(NOW, max_size=limit))) - garbage
    outputs = {
        (facts.place, facts.function, each.path): each.used for facts in stock for each in facts.outputs
    }
    stays = [used for name, used in outputs.items() if name not in went | garbage]
    assert all(outputs[name] <= min(stays, default=math.inf) for name in went if name in outputs)


def gone_of(choice: Choice) -> set[tuple[str, FunctionId, str]]:
    return {(each.place, each.function, each.name) for each in (*choice.outputs, *choice.parts)}
