from __future__ import annotations

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
