"""What a root says of itself: its format, its salt and its aliases."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray import __version__
from distill_ray.cache.paths import FORMAT_FILE, FORMAT_VERSION
from distill_ray.cache.root_settings import (
    RootSettings,
    add_alias,
    claim,
    open_root,
    read_settings,
    set_salt,
)
from distill_ray.cache.store import CacheStore
from distill_ray.errors import FormatVersionError
from distill_ray.storage import LocalStorage, Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return LocalStorage(str(tmp_path / "root"))


# The format.


def test_an_empty_root_has_the_default_settings_and_is_left_empty_by_a_look_at_it(storage: Storage) -> None:
    assert read_settings(storage) == RootSettings()
    assert open_root(storage) == (storage, RootSettings(), False)
    assert not Path(storage.url).exists()


def test_an_empty_root_is_claimed_once(storage: Storage) -> None:
    CacheStore(storage).claim()
    assert json.loads(storage.read(FORMAT_FILE)) == {"format": FORMAT_VERSION}
    set_salt(storage, "s")
    claim(storage)
    assert read_settings(storage).salt == "s"


def test_what_is_claimed_is_the_root_and_not_the_part_of_it_that_is_used(storage: Storage) -> None:
    CacheStore(storage.below("scopes/a"), home=storage).claim()
    assert storage.sizes("").keys() == {FORMAT_FILE}
    assert storage.folders("") == []


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(FORMAT_VERSION + 1, "A newer distill_ray made it: upgrade"), (1, "An older one made it: use another")],
)
def test_another_format_is_refused_by_name_with_what_to_do(
    storage: Storage, version: int, remedy: str
) -> None:
    storage.publish(FORMAT_FILE, json.dumps({"format": version, "more": [1]}).encode())
    for use in (
        read_settings,
        claim,
        lambda root: set_salt(root, "s"),
        lambda root: add_alias(root, "a", "b"),
    ):
        with pytest.raises(FormatVersionError, match=f"has format {version}; this distill_ray") as refused:
            use(storage)
        for text in (storage.url, f"({__version__}) reads and writes format {FORMAT_VERSION}.", remedy):
            assert text in str(refused.value)


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"\x00",
        b"[]",
        b"{}",
        b'{"format": null}',
        b'{"format": "two"}',
        *(
            json.dumps({"format": FORMAT_VERSION, **more}).encode()
            for more in ({"more": 1}, {"salt": 1}, {"aliases": ["a"]}, {"aliases": {"a": 1}})
        ),
    ],
)
def test_settings_that_nobody_knows_are_refused(storage: Storage, found: bytes) -> None:
    storage.publish(FORMAT_FILE, found)
    with pytest.raises(FormatVersionError, match="which no distill_ray wrote that this one knows"):
        read_settings(storage)


def test_the_settings_may_be_written_by_hand(storage: Storage) -> None:
    storage.publish(FORMAT_FILE, b'{ "format": %d,\n "salt": "x" }\n' % FORMAT_VERSION)
    assert read_settings(storage) == RootSettings(salt="x")


# The salt.


def test_with_a_salt_everything_stands_in_a_folder_of_its_own(storage: Storage) -> None:
    found = set()
    for salt in ("", "a", "b", "../a", "\ud800", "a" * 1000):
        set_salt(storage, salt)
        place, settings, _ = open_root(storage)
        assert settings.salt == salt
        place.publish("object", salt.encode("utf-8", "surrogatepass"))
        found.add(place.url)
    assert len(found) == 6
    set_salt(storage, "a")
    assert open_root(storage)[0].read("object") == b"a"
    set_salt(storage, "")
    assert open_root(storage)[0].read("object") == b""


def test_a_salt_keeps_the_aliases(storage: Storage) -> None:
    add_alias(storage, "new", "old")
    assert set_salt(storage, "s") == RootSettings(salt="s", aliases={"new": "old"}) == read_settings(storage)


# Aliases.


def test_a_chain_of_aliases_leads_to_its_end(storage: Storage) -> None:
    add_alias(storage, "c", "b")
    add_alias(storage, "b", "a")
    settings = add_alias(storage, "d", "c")
    assert [settings.canonical(each) for each in "abcde"] == ["a", "a", "a", "a", "e"]
    assert read_settings(storage) == settings


def test_an_alias_of_what_is_the_same_already_changes_nothing(storage: Storage) -> None:
    settings = add_alias(storage, "b", "a")
    assert add_alias(storage, "a", "b") == add_alias(storage, "b", "a") == settings
    assert add_alias(storage, "x", "x") == settings


def test_a_circle_written_by_hand_ends() -> None:
    settings = RootSettings(aliases={"a": "b", "b": "c", "c": "a"})
    assert [settings.canonical(each) for each in "abc"] == ["c", "a", "b"]


pairs = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=12)


@given(pairs, pairs)
def test_aliases_never_run_in_a_circle_and_those_of_the_first_root_stay(
    mine: list[tuple[str, str]], theirs: list[tuple[str, str]]
) -> None:
    first, second = RootSettings(), RootSettings()
    for new, old in mine:
        first = first.with_alias(new, old)
        assert first.canonical(new) == first.canonical(old)
    for new, old in theirs:
        second = second.with_alias(new, old)
    merged = first.before(second)
    assert merged.salt == first.salt
    assert first.aliases.items() <= merged.aliases.items()
    for each in "abcdef":
        assert merged.canonical(merged.canonical(each)) == merged.canonical(each)
        assert merged.canonical(first.canonical(each)) == merged.canonical(each)


def test_settings_changed_by_several_at_once_are_those_of_one_or_of_all(storage: Storage) -> None:
    """No change is half made; a change that was overwritten after it was seen costs a computation."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(add_alias, [(storage, f"new-{n}", f"old-{n}") for n in range(8)])
    aliases = read_settings(storage).aliases
    assert aliases
    assert all(old == new.replace("new", "old") for new, old in aliases.items())
