"""So many batches keep all slots busy where the times of answers are spread as those of servers are."""

from __future__ import annotations

import random
from collections import Counter, deque
from heapq import heappop, heappush

import pytest

from distill_ray.models.saturation import MOST_BATCHES, batches_to_saturate


def busy_share(slots: int, rows: int, at_once: int, seed: int) -> float:
    """The share of slots that is busy until the last of 60 requests a slot is sent, by a simulation."""
    dice = random.Random(seed)
    batches = deque(range(max(4 * at_once, 60 * slots // rows)))
    waiting: deque[int] = deque()
    left: Counter[int] = Counter()
    under_way: list[tuple[float, int]] = []
    now = busy = 0.0
    while True:
        while len(left) < at_once and batches:
            left[batches[0]] = rows
            waiting.extend([batches.popleft()] * rows)
        while waiting and len(under_way) < slots:
            heappush(under_way, (now + dice.lognormvariate(0, 1), waiting.popleft()))
        if not waiting and not batches:
            return busy / (now * slots)
        then, batch = heappop(under_way)
        busy += (len(under_way) + 1) * (then - now)
        now = then
        left[batch] -= 1
        if not left[batch]:
            del left[batch]


@pytest.mark.parametrize(
    ("slots", "rows"), [(4, 50), (32, 1), (32, 10), (32, 50), (32, 500), (64, 50), (256, 50)]
)
def test_slots_are_busy_whatever_the_size_of_batches(slots: int, rows: int) -> None:
    at_once = batches_to_saturate(slots, rows)
    shares = [busy_share(slots, rows, at_once, seed) for seed in range(5)]
    assert min(shares) > 0.95


def test_one_batch_after_the_other_leaves_most_slots_idle() -> None:
    assert busy_share(32, 50, 1, seed=0) < 0.4


def test_batches_are_bounded() -> None:
    assert batches_to_saturate(10_000, 1) == MOST_BATCHES
