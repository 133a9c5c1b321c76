"""No name leaves the root, and no two names meet."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.paths import (
    LEASES_FOLDER,
    FunctionId,
    awaited_output,
    finished_record,
    is_safe_name,
    latest_record,
    lease,
    pipeline_record,
    probe,
    run_folder,
    safe_name,
    salted_folder,
    scope_folder,
    split_lease,
    waiting,
)

names = st.one_of(
    st.text(),
    st.text(st.characters()),
    st.lists(st.sampled_from(["..", "/", ".", "~", "a", "A", "_", "\\", "\n", "\0", "\ud800", " "])).map(
        "".join
    ),
    st.integers(0, 5000).map(lambda length: "x" * length),
)


@given(names)
def test_a_name_becomes_one_harmless_path_element(name: str) -> None:
    element = safe_name(name)
    assert 1 <= len(element) <= 100
    assert element.isascii()
    assert not set(element) & set("/\\\0\n ")
    assert element.lstrip(".") == element


@given(names, names)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


@given(names)
def test_no_path_leaves_the_root(name: str) -> None:
    function = FunctionId(name, name)
    paths = [
        function.manifest(name),
        function.signature_file,
        pipeline_record(name, name, name),
        latest_record(name),
        finished_record(name),
        f"{run_folder(name)}/x",
        scope_folder(name),
        salted_folder(name),
        probe(name),
    ]
    for path in paths:
        parts = PurePosixPath(path).parts
        assert parts[0] in {"steps", "pipelines", "runs", "scopes", "salted", "probes"}
        assert ".." not in parts
        assert len(parts) == path.count("/") + 1


@given(names, names)
def test_scopes_stay_apart_on_disks_that_see_no_capitals(one: str, other: str) -> None:
    assert (scope_folder(one).lower() == scope_folder(other).lower()) == (one == other)
    assert (salted_folder(one) == salted_folder(other)) == (one == other)


def test_a_scope_is_named_by_its_pipeline() -> None:
    assert scope_folder("my-pipeline") == "scopes/my-pipeline"
    assert scope_folder("My-Pipeline").startswith("scopes/My-Pipeline~")


@pytest.mark.parametrize("name", ["My_Step.v2-b", "a" * 80])
def test_plain_names_are_kept_as_they_are(name: str) -> None:
    assert safe_name(name) == name


def test_a_name_that_looks_like_a_changed_one_is_changed_again() -> None:
    changed = safe_name("my step")
    assert safe_name(changed) != changed


@given(names, st.integers(1, 10**9))
def test_a_lease_is_told_by_its_output_and_epoch(name: str, epoch: int) -> None:
    folder, element = lease(name, epoch).split("/")
    assert folder == LEASES_FOLDER
    assert split_lease(element) == (safe_name(name), epoch)


@given(names, names)
def test_who_waits_for_an_output_is_told_from_who_computes_it(name: str, run: str) -> None:
    element = waiting(name, run).removeprefix(f"{LEASES_FOLDER}/")
    assert awaited_output(element) == safe_name(name) or ".waiting." in safe_name(name)
    assert split_lease(element) != (safe_name(name), 1)


def test_a_function_is_found_by_its_signature() -> None:
    function = FunctionId("TextGeneration", "ab" * 32)
    assert function.folder == f"steps/TextGeneration-{'ab' * 32}"
    assert function.part("x-1") == f"{function.folder}/parts/x-1.parquet"
    assert function.manifest("cd" * 32) == f"{function.folder}/outputs/{'cd' * 32}.json"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "a\n", "é", "a~b"])
def test_other_names_are_not_safe(name: str) -> None:
    assert not is_safe_name(name)
