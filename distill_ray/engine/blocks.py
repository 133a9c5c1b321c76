"""Where rows are while a run goes on: in memory, in a part, or both; and who still needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.units import StoredRows
from distill_ray.cache.writer import WrittenPart

LIVE_BYTES = 256 << 20
"""Bytes that a step's rows may hold in memory before those that are in parts are let go."""


KEYS_OF_BLOCKS = 256
"""Blocks whose rows' keys are held at once: 16 bytes a row."""


class Slice(NamedTuple):
    """Rows of a block. A tuple: there may be one for each row, and it is made several times faster."""

    block: int
    start: int
    rows: int


class Piece(NamedTuple):
    """A slice with its rows' digests, 16 bytes each; a view where it was cut off a larger one."""

    slice: Slice
    digests: bytes | memoryview


class Edge:
    """The ordered rows on their way from one step to one that follows it.

    Args:
        producer: the step that they come from.
        consumer: the step that they go to.
        rows_ahead: how many rows of an output that is complete already are read ahead.
    """

    def __init__(self, producer: str, consumer: str, rows_ahead: float = 0) -> None:
        self.producer = producer
        self.consumer = consumer
        self.rows_ahead = rows_ahead
        self.rows = 0
        self.total = 0
        self.closed = False
        self._pieces: deque[Piece] = deque()

    def push(self, piece: Piece) -> None:
        """Put rows at the end."""
        if piece.slice.rows:
            self._pieces.append(piece)
            self.rows += piece.slice.rows
            self.total += piece.slice.rows

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
                piece, rest = _split(piece, missing)
                self._pieces.appendleft(rest)
            slices.append(piece.slice)
            digests.append(piece.digests)
            missing -= piece.slice.rows
        self.rows -= rows
        return slices, b"".join(digests)


def _split(piece: Piece, rows: int) -> tuple[Piece, Piece]:
    whole, cut, digests = piece.slice, rows * DIGEST_SIZE, memoryview(piece.digests)
    return (
        Piece(Slice(whole.block, whole.start, rows), digests[:cut]),
        Piece(Slice(whole.block, whole.start + rows, whole.rows - rows), digests[cut:]),
    )


@dataclass
class _Block:
    step: str
    nbytes: int = 0
    live: bool = False
    needed: int = 0
    part: PartEntry | None = None
    first_row: int = 0
    replica: int | None = None


@dataclass
class Blocks:
    """All blocks of a run.

    Attributes:
        live_bytes: see `LIVE_BYTES`.
    """

    live_bytes: int = LIVE_BYTES
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _stored: dict[tuple[str, str], int] = field(default_factory=dict)
    _held: dict[str, int] = field(default_factory=dict)
    _live: dict[int, None] = field(default_factory=dict)
    _idle: set[int] = field(default_factory=set)
    _forgotten: list[int] = field(default_factory=list)
    _held_up: dict[str, None] = field(default_factory=dict)
    _keys: dict[tuple[int, tuple[str, ...]], bytes] = field(default_factory=dict)
    _count: int = 0

    def new(self, step: str) -> int:
        """Name the rows that a call is going to make."""
        self._count += 1
        self._blocks[self._count] = _Block(step)
        return self._count

    def stored(self, step: str, found: StoredRows) -> Piece:
        """Return rows that an earlier run left in a part, which is one block as a whole."""
        block = self._stored.get((step, found.part.name))
        if block is None:
            block = self._stored[step, found.part.name] = self.new(step)
            self._blocks[block].part = found.part
        return Piece(Slice(block, found.first_row, found.rows), found.digests)

    def made(self, block: int, nbytes: int, replica: int | None = None) -> None:
        """The call to a replica returned: its rows are in memory."""
        entry = self._blocks[block]
        entry.live, entry.nbytes, entry.replica = True, nbytes, replica
        self._live[block] = None
        self._held[entry.step] = self._held.get(entry.step, 0) + nbytes

    def is_live(self, block: int) -> bool:
        """Whether rows are in memory."""
        return self._blocks[block].live

    def is_there(self, block: int) -> bool:
        """Whether rows can be read: from memory, or from a part."""
        entry = self._blocks[block]
        return entry.live or entry.part is not None

    def step_of(self, block: int) -> str:
        """The step that made rows."""
        return self._blocks[block].step

    def lose(self, block: int) -> bool:
        """Rows are in memory no more; say whether they are in no part either."""
        entry = self._blocks[block]
        if entry.live:
            self._let_go(block)
            self._forgotten.append(block)
        return entry.part is None

    def give_up(self, block: int) -> None:
        """The call that was to make rows is made again under another name: nobody waits for these."""
        self._forgotten.append(block)

    def forsake(self, step: str, replica: int) -> None:
        """A replica is gone, maybe with its node: rows of it that are in parts are read from there."""
        for number in list(self._live):
            entry = self._blocks[number]
            if entry.replica == replica and entry.step == step and entry.part is not None:
                self.lose(number)

    def forget(self, block: int) -> None:
        """The call returned, but nobody wants its rows."""
        del self._blocks[block]
        self._forgotten.append(block)

    def written(self, part: WrittenPart) -> None:
        """The blocks' rows have reached the storage."""
        for block, first_row in part.blocks:
            self._blocks[block].part = part.entry
            self._blocks[block].first_row = first_row
            self._idle.add(block)

    def need(self, piece: Slice) -> None:
        """Someone will read these rows."""
        self._blocks[piece.block].needed += piece.rows

    def done(self, slices: Iterable[Slice]) -> None:
        """Someone has read these rows and will not again."""
        for piece in slices:
            entry = self._blocks[piece.block]
            entry.needed -= piece.rows
            if entry.needed == 0 and entry.live:
                self._idle.add(piece.block)

    def knows_keys(self, block: int, columns: tuple[str, ...]) -> bool:
        """Whether the digests of some columns of a block's rows are at hand."""
        return (block, columns) in self._keys

    def keys(self, piece: Slice, columns: tuple[str, ...]) -> bytes | None:
        """Digests of some columns of rows, 16 bytes a row; None where they are not known."""
        keys = self._keys.get((piece.block, columns))
        start = piece.start * DIGEST_SIZE
        return None if keys is None else keys[start : start + piece.rows * DIGEST_SIZE]

    def keys_read(self, block: int, columns: tuple[str, ...], keys: bytes) -> None:
        """Take in the digests of some columns of all rows of a block."""
        self._keys[block, columns] = keys
        while len(self._keys) > KEYS_OF_BLOCKS:  # the oldest; who still needs them asks again
            del self._keys[next(iter(self._keys))]

    def place(self, block: int) -> tuple[str, PartEntry, int] | None:
        """Return (step, part, first row) of rows that are read from a part; None: they are in memory."""
        entry = self._blocks[block]
        return None if entry.live or entry.part is None else (entry.step, entry.part, entry.first_row)

    def stored_at(self, block: int) -> tuple[PartEntry, int] | None:
        """Return (part, first row) of rows that have reached the storage."""
        entry = self._blocks[block]
        return None if entry.part is None else (entry.part, entry.first_row)

    def are_full(self, step: str) -> bool:
        """Whether a step's rows in memory are so many that it must make no more; it is then held up."""
        full = self._held.get(step, 0) > self.live_bytes
        if full:
            self._held_up[step] = None
        return full

    def no_longer_held_up(self) -> tuple[str, ...]:
        """The steps that were held up, now that rows were let go."""
        steps = tuple(self._held_up)
        self._held_up.clear()
        return steps

    def release(self) -> tuple[int, ...]:
        """Let go of rows in memory that are stored and either needed by nobody or too many."""
        released = [number for number in self._idle if self._drop(number)] + self._forgotten
        self._idle.clear()
        self._forgotten = []
        for step, held in self._held.items():
            if held > self.live_bytes:
                released += [n for n in list(self._live) if self._blocks[n].step == step and self._drop(n)]
        return tuple(released)

    def _drop(self, number: int) -> bool:
        entry = self._blocks[number]
        too_many = self._held.get(entry.step, 0) > self.live_bytes
        if not entry.live or entry.part is None or (entry.needed and not too_many):
            return False
        self._let_go(number)
        return True

    def _let_go(self, number: int) -> None:
        entry = self._blocks[number]
        entry.live = False
        del self._live[number]
        self._held[entry.step] -= entry.nbytes
