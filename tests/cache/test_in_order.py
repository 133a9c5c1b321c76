"""Work on several threads, whose results come in order."""

from __future__ import annotations

from collections.abc import Iterator

from distill_ray.cache.in_order import AHEAD, in_order


def test_work_is_done_a_bounded_number_of_items_ahead_and_given_in_order() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10 * AHEAD):
            asked.append(number)
            yield number

    results = in_order(lambda number: number * 2, items())
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    assert len(asked) <= AHEAD + 3
    assert list(results) == [2 * number for number in range(3, 10 * AHEAD)]
