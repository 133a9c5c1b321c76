"""What became of the rows of an output, told by their digests alone: added, deleted, changed, moved."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from distill_ray.cache.rows import split_digests


@dataclass(frozen=True)
class RowChanges:
    """How rows differ from those before.

    Attributes:
        before: rows before.
        now: rows now.
        added: numbers, now, of rows that are new.
        deleted: numbers, before, of rows that are gone.
        changed: ``(number before, number now)`` of rows that took the place of others.
        moved: rows that are as before but stand in another order.
    """

    before: int
    now: int
    added: tuple[int, ...] = ()
    deleted: tuple[int, ...] = ()
    changed: tuple[tuple[int, int], ...] = ()
    moved: int = 0

    @property
    def text(self) -> str:
        """``+1,000 rows, 12 changed``."""
        counts = (
            (len(self.added), f"+{len(self.added):,}"),
            (len(self.deleted), f"-{len(self.deleted):,}"),
            (len(self.changed), f"{len(self.changed):,} changed"),
            (self.moved, f"{self.moved:,} moved"),
        )
        told = [text for count, text in counts if count]
        return f"{', '.join(told)} of {self.before:,} rows" if told else f"the same {self.now:,} rows"


def row_changes(before: bytes, now: bytes) -> RowChanges:
    """Compare rows by their digests, 16 bytes a row, as `row_digests` gives them.

    The k-th of equal rows is the k-th of them before. A row that is new where another one is gone, between
    rows that are as before, has changed.
    """
    old, new = split_digests(before), split_digests(now)
    kept = _kept(old, new)
    stay = _longest_rising(kept)
    kept_before, kept_now = {a for a, _ in kept}, {b for _, b in kept}
    added: list[int] = []
    deleted: list[int] = []
    changed: list[tuple[int, int]] = []
    for (a, b), (next_a, next_b) in pairwise([(-1, -1), *stay, (len(old), len(new))]):
        gone = [row for row in range(a + 1, next_a) if row not in kept_before]
        come = [row for row in range(b + 1, next_b) if row not in kept_now]
        both = min(len(gone), len(come))
        changed += zip(gone, come, strict=False)
        deleted += gone[both:]
        added += come[both:]
    moved = len(kept) - len(stay)
    return RowChanges(len(old), len(new), tuple(added), tuple(deleted), tuple(changed), moved)


def _kept(old: Sequence[bytes], new: Sequence[bytes]) -> list[tuple[int, int]]:
    """``(number before, number now)`` of rows that are as before, by their number before."""
    places: dict[bytes, list[int]] = defaultdict(list)
    for row in range(len(new) - 1, -1, -1):
        places[new[row]].append(row)
    return [(row, places[digest].pop()) for row, digest in enumerate(old) if places.get(digest)]


def _longest_rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The most pairs whose second numbers rise: the rows that stayed where the others moved."""
    ends: list[int] = []  # the smallest last number of a rising row of each length
    last: list[int] = []  # which pair that is
    before: list[int] = []  # for each pair the one that it follows
    for place, (_, number) in enumerate(pairs):
        length = bisect_left(ends, number)
        if length == len(ends):
            ends.append(number)
            last.append(place)
        else:
            ends[length], last[length] = number, place
        before.append(last[length - 1] if length else -1)
    found: list[tuple[int, int]] = []
    place = last[-1] if last else -1
    while place >= 0:
        found.append(pairs[place])
        place = before[place]
    return found[::-1]
