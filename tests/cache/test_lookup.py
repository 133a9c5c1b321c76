"""A function or an output is found by what `ls` shows of it."""

from __future__ import annotations

import pytest

from distill_ray.cache.inventory import Root
from distill_ray.cache.lookup import Entry, find_entries
from distill_ray.cache.store import CacheStore
from tests.cache.made_cache import FUNCTION, OTHER, key, put_output, put_part, run_id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Answer", [(FUNCTION, "")]),
        ("ffff", [(FUNCTION, "")]),
        ("Answer-fff", [(FUNCTION, "")]),
        (f"Answer-{'f' * 64}", [(FUNCTION, "")]),
        ("Answ", []),
        ("Answer-", []),
        ("nothing", []),
        (key("a")[:8], [(FUNCTION, key("a"))]),
        (key("b"), [(OTHER, key("b"))]),
        (f"Answer-{'f' * 64}/{key('a')}", [(FUNCTION, key("a"))]),
        (f"Answer-{'f' * 64}/{key('b')}", []),
        ("scopes/x/Answer", []),
    ],
)
def test_names_are_classes_or_beginnings(
    store: CacheStore, name: str, expected: list[tuple[object, str]]
) -> None:
    run = run_id()
    put_output(store, "a", run, [put_part(store, run)])
    put_output(store, "b", run, [put_part(store, run, function=OTHER)], function=OTHER)
    found = list(find_entries(Root("", store), name))
    assert [(entry.function, entry.output) for entry in found] == expected


def test_an_entry_says_what_it_is(store: CacheStore) -> None:
    assert str(Entry(Root("", store), FUNCTION)) == f"Answer-{'f' * 64}"
    assert str(Entry(Root("scopes/x", store), FUNCTION, "k")) == f"scopes/x/Answer-{'f' * 64}/k"


def test_what_an_entry_says_is_a_name_of_it(store: CacheStore) -> None:
    run = run_id()
    put_output(store, "a", run, [put_part(store, run)])
    root = Root("scopes/x", store)
    for entry in (Entry(root, FUNCTION), Entry(root, FUNCTION, key("a"))):
        assert list(find_entries(root, str(entry))) == [entry]
