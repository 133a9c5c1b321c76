from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from distill_ray.cache.kept_parts import KeptParts


def parts_of(read: list[int], *, at_least: int = 1, max_bytes: int = 40) -> KeptParts[int, bytes]:
    """Parts of ten bytes each; notes which are read."""

    def of(part: int) -> bytes:
        read.append(part)
        return bytes(10)

    return KeptParts(of, len, at_least, max_bytes)


def test_parts_that_alternate_are_read_once_each() -> None:
    read: list[int] = []
    parts = parts_of(read)
    for part in (0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0):
        assert parts(part) == bytes(10)
    assert read == [0, 1, 2, 3]


def test_what_was_asked_for_longest_ago_goes_where_memory_is_short_before_the_next_is_read() -> None:
    read: list[int] = []
    parts = parts_of(read)
    for part in (0, 1, 2, 3, 0, 4):
        parts(part)
    assert [part for part in range(5) if part in parts] == [0, 2, 3, 4]
    parts(1)
    assert read == [0, 1, 2, 3, 4, 1]


def test_some_are_kept_whatever_their_size() -> None:
    read: list[int] = []
    parts = parts_of(read, at_least=3, max_bytes=0)
    for part in (0, 1, 2, 0, 1, 2):
        parts(part)
    assert read == [0, 1, 2]
    parts(3)
    assert 0 not in parts


def test_what_is_spent_goes_when_another_is_read_and_not_before() -> None:
    read: list[int] = []
    parts = parts_of(read)
    parts(0)
    parts.spend(0)
    parts(0)
    assert read == [0]
    parts.spend(0)
    parts(1)
    assert 0 not in parts


@pytest.fixture
def threads_alternating() -> Iterator[None]:
    """Threads take turns after a few steps of the interpreter."""
    seconds = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(seconds)


@pytest.mark.usefixtures("threads_alternating")
def test_several_threads_may_ask_for_parts_and_say_which_are_spent() -> None:
    parts = parts_of([], max_bytes=1_000)

    def walk(first: int) -> int:
        for part in range(first, first + 2_000):
            assert parts(part) == bytes(10)
            parts.spend(part)
        return first

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(walk, range(8))) == list(range(8))


def test_a_copy_begins_without_parts() -> None:
    parts = KeptParts(bytes, len)
    parts(10)
    copied = copy.deepcopy(parts)
    assert 10 not in copied
    assert copied(10) == bytes(10)
