"""Turns batches, which name blocks, into the work a replica is sent, which says where to read rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distill_ray.engine.blocks import Blocks, Slice
from distill_ray.engine.messages import BatchWork, Range, SendWork, StoredPart, Work
from distill_ray.engine.step_state import Batch


def send_work(step: str, replica: int, block: int, batches: Sequence[Batch], blocks: Blocks) -> SendWork:
    """Make the call that computes ``batches`` into ``block``."""
    sources = _Sources(blocks)
    predecessors = len(batches[0].slices)
    inputs = tuple(
        sources.ranges(piece for batch in batches for piece in batch.slices[number])
        for number in range(predecessors)
    )
    work = Work(
        block=block,
        batches=tuple(BatchWork(batch.key, batch.first_row, batch.rows) for batch in batches),
        inputs=inputs,
        sources=tuple(sources.found),
    )
    return SendWork(step, replica, work, tuple(sources.live))


class _Sources:
    """The blocks that one call reads from, each named once."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._numbers: dict[object, int] = {}
        self.found: list[StoredPart | None] = []
        self.live: list[int] = []

    def ranges(self, slices: Iterable[Slice]) -> tuple[Range, ...]:
        """Where the slices' rows stand, neighbours joined."""
        joined: list[Range] = []
        for piece in slices:
            source, start = self._locate(piece)
            last = joined[-1] if joined else None
            if last and last.source == source and last.start + last.rows == start:
                joined[-1] = Range(source, last.start, last.rows + piece.rows)
            else:
                joined.append(Range(source, start, piece.rows))
        return tuple(joined)

    def _locate(self, piece: Slice) -> tuple[int, int]:
        place = self._blocks.place(piece.block)
        if place is None:
            if piece.block not in self._numbers:
                self.live.append(piece.block)
            return self._number(piece.block, None), piece.start
        step, part, first_row = place
        return self._number((step, part.name), StoredPart(step, part.name)), first_row + piece.start

    def _number(self, key: object, source: StoredPart | None) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.found)
            self.found.append(source)
        return self._numbers[key]
