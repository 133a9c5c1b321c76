"""The rows on their way from one step to one that follows it, in their order."""

from __future__ import annotations

import math
from collections import deque

from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.engine.scheduling.blocks import Blocks, Piece, Slice


class Edge:
    """The ordered rows on their way from one step to one that follows it.

    The digests of the next rows are at hand. Those of rows further behind, of which there is no end where a
    step is slower than the one above it, are left out: they stand in the rows' parts, and come back in time.

    Args:
        producer: the step that they come from.
        consumer: the step that they go to.
        rows_ahead: rows whose digests are at hand; of an output that is complete already, as many are read
            ahead.

    Attributes:
        consumers: the step that they go to; where it is a `Fork`, all that they may go to.
        rows: how many wait whose digests are at hand.
        total: how many ever came.
        closed: no more will come.
    """

    def __init__(self, producer: str, consumer: str, rows_ahead: float = math.inf) -> None:
        self.producer = producer
        self.consumers = [consumer]
        self.rows_ahead = rows_ahead
        self.rows = 0
        self.total = 0
        self.closed = False
        self._pieces: deque[Piece] = deque()
        self._behind: deque[Slice] = deque()

    def push(self, piece: Piece) -> None:
        """Put rows at the end."""
        if not piece.slice.rows:
            return
        self.total += piece.slice.rows
        if self._behind or self.rows >= self.rows_ahead:
            self._behind.append(piece.slice)
        else:
            self._append(piece)

    def close(self) -> None:
        """No more rows will come."""
        self.closed = True

    @property
    def wants_rows(self) -> bool:
        """Whether so few rows of an output that is complete already are left that more are to be read."""
        return not self.closed and self.rows < self.rows_ahead

    def _append(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.rows += piece.slice.rows

    @property
    def ended(self) -> bool:
        """Whether the rows at hand are the last ones."""
        return self.closed and not self._behind

    def draw_near(self, blocks: Blocks) -> int | None:
        """Let rows further behind be at hand where there are few; return the block of which it lacks them."""
        while self._behind and self.rows < self.rows_ahead:
            digests = blocks.digests(self._behind[0])
            if digests is None:
                return self._behind[0].block
            self._append(Piece(self._behind.popleft(), digests))
        return None

    @property
    def head(self) -> Piece:
        """The next piece; there must be one."""
        return self._pieces[0]

    @property
    def tail(self) -> Piece:
        """The last piece; there must be one."""
        return self._pieces[-1]

    def take(self, rows: int) -> tuple[list[Slice], bytes]:
        """Take the next rows off; there must be as many."""
        slices, digests, missing = [], [], rows
        while missing:
            piece = self._pieces.popleft()
            if piece.slice.rows > missing:
                piece, rest = split(piece, missing)
                self._pieces.appendleft(rest)
            slices.append(piece.slice)
            digests.append(piece.digests)
            missing -= piece.slice.rows
        self.rows -= rows
        return slices, b"".join(digests)


def split(piece: Piece, rows: int) -> tuple[Piece, Piece]:
    """The first rows of a piece, and those after them."""
    whole, cut, digests = piece.slice, rows * DIGEST_SIZE, memoryview(piece.digests)
    return (
        Piece(Slice(whole.block, whole.start, rows), digests[:cut]),
        Piece(Slice(whole.block, whole.start + rows, whole.rows - rows), digests[cut:]),
    )
