"""How many batches keep all slots of a model busy, although each lasts as long as its slowest row."""

from __future__ import annotations

REQUESTS_PER_SLOT = 8
"""Requests to have at hand for each slot, answered ones included.

The times of answers are spread like a log-normal distribution: where its sigma is 1, the slowest of 50 takes
about six times as long as the mean, and so do their batches. By Little's law six requests for each slot are
under way or wait in their batch for its slowest one; the others make up for batches that take still longer.
"""

MOST_BATCHES = 64
"""Each is a thread of the replica."""


def batches_to_saturate(slots: int, requests: int) -> int:
    """Batches of so many requests, at most `MOST_BATCHES`: two more, as one ends and one begins."""
    return min(MOST_BATCHES, -(-REQUESTS_PER_SLOT * slots // max(1, requests)) + 2)
