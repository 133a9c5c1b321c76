"""Turns batches, which name blocks, into the work a replica is sent, which says where to read rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distill_ray.engine.actions import SendWork
from distill_ray.engine.messages import BatchWork, Purpose, Range, StoredPart, Work
from distill_ray.engine.scheduling.batches import Batch
from distill_ray.engine.scheduling.blocks import Blocks, Slice


def send_work(step: str, replica: int, block: int, batches: Sequence[Batch], blocks: Blocks) -> SendWork:
    """Make the call that computes ``batches``, all of one purpose, into ``block``."""
    sources = _Sources(blocks)
    runs = [run for batch in batches for run in batch.runs]
    inputs = tuple(
        sources.ranges(piece for run in runs for piece in run.slices[number])
        for number in range(len(runs[0].slices))
    )
    purpose = batches[0].purpose
    stored = [each for batch in batches for each in batch.stored] if purpose is Purpose.JOIN else []
    work = Work(
        block=block,
        batches=tuple(
            BatchWork(tuple((run.first_row, run.rows) for run in batch.runs), batch.key) for batch in batches
        ),
        inputs=inputs,
        purpose=purpose,
        stored=tuple(
            Range(sources.of_part(step, each.part.name), each.first_row, each.rows) for each in stored
        ),
        sources=tuple(sources.found),
        reason=batches[0].reason,
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

    def of_part(self, step: str, part: str) -> int:
        """The number of a part among the sources."""
        number = self._numbers.get((step, part))
        return self._number((step, part), StoredPart(step, part)) if number is None else number

    def _locate(self, piece: Slice) -> tuple[int, int]:
        place = self._blocks.place(piece.block)
        if place is None:
            if piece.block not in self._numbers:
                self.live.append(piece.block)
            return self._number(piece.block, None), piece.start
        step, part, first_row = place
        return self.of_part(step, part.name), first_row + piece.start

    def _number(self, key: object, source: StoredPart | None) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.found)
            self.found.append(source)
        return self._numbers[key]
