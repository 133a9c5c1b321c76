"""Where rows are while a run goes on: in memory, in a part, or both; and who still needs them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.units import StoredRows
from distill_ray.cache.writer import WrittenPart

LIVE_BYTES = 256 << 20
"""Bytes that a run's rows may hold in memory between its steps, where no executor says otherwise."""

SMALL_BYTES = 100 << 10
"""Rows of fewer bytes may be held by the driver itself: Ray leaves such results there."""

DRIVER_BYTES = 256 << 20
"""Bytes of small rows that may be held at once, however large the object store is."""

KEYS_OF_BLOCKS = 256
"""Blocks whose rows' keys are held at once: 16 bytes a row."""

DIGESTS_OF_PARTS = 32 << 20
"""Bytes of digests of parts' rows that are held for the steps that have fallen behind."""


class Slice(NamedTuple):
    """Rows of a block. A tuple: there may be one for each row, and it is made several times faster."""

    block: int
    start: int
    rows: int


class Piece(NamedTuple):
    """A slice with its rows' digests, 16 bytes each; a view where it was cut off a larger one."""

    slice: Slice
    digests: bytes | memoryview


@dataclass
class _Block:
    step: str
    nbytes: int = 0
    live: bool = False
    needed: int = 0
    part: PartEntry | None = None
    first_row: int = 0
    replica: int | None = None
    digests: bytes | None = None
    """Those of all its rows, until they are in a part."""


@dataclass
class Blocks:
    """All blocks of a run.

    Attributes:
        live_bytes: bytes that rows in memory may take in all: see `LIVE_BYTES`.
        steps: how many steps share these.
        read_late: steps whose rows are read when all are there: those in parts are not held in memory.
    """

    live_bytes: int = LIVE_BYTES
    steps: int = 1
    read_late: frozenset[str] = frozenset()
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _stored: dict[tuple[str, str], int] = field(default_factory=dict)
    _held: dict[str, int] = field(default_factory=dict)
    _held_in_all: int = 0
    _live: dict[int, None] = field(default_factory=dict)
    _spare: dict[str, dict[int, None]] = field(default_factory=dict)
    """By step the blocks that are both in memory and in a part."""
    _idle: set[int] = field(default_factory=set)
    _forgotten: list[int] = field(default_factory=list)
    _held_up: dict[str, None] = field(default_factory=dict)
    _keys: dict[tuple[int, tuple[str, ...]], bytes] = field(default_factory=dict)
    _part_digests: dict[str, bytes] = field(default_factory=dict)
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

    def made(self, block: int, nbytes: int, replica: int | None = None, digests: bytes = b"") -> None:
        """The call to a replica returned: its rows are in memory."""
        entry = self._blocks[block]
        if nbytes < SMALL_BYTES:
            nbytes *= max(1, self.live_bytes // DRIVER_BYTES)
        entry.live, entry.nbytes, entry.replica = True, nbytes, replica
        self._live[block] = None
        self._held[entry.step] = self._held.get(entry.step, 0) + nbytes
        self._held_in_all += nbytes
        if entry.part is None:
            entry.digests = digests
        else:
            self._spare.setdefault(entry.step, {})[block] = None
            self._idle.add(block)  # another call that ran beside it said first that it is written

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
            entry = self._blocks[block]
            entry.part, entry.first_row, entry.digests = part.entry, first_row, None
            if entry.live:
                self._spare.setdefault(entry.step, {})[block] = None
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

    def digests(self, piece: Slice) -> bytes | memoryview | None:
        """Digests of rows; None where they have to be read from the rows' part."""
        entry = self._blocks[piece.block]
        digests, start = entry.digests, piece.start
        if entry.part is not None:
            digests, start = self._part_digests.get(entry.part.name), entry.first_row + start
        if digests is None:
            return None
        return memoryview(digests)[start * DIGEST_SIZE : (start + piece.rows) * DIGEST_SIZE]

    def digests_read(self, part: str, digests: bytes) -> None:
        """Take in the digests of a part's rows."""
        self._part_digests[part] = digests
        while len(self._part_digests) > 1 and sum(map(len, self._part_digests.values())) > DIGESTS_OF_PARTS:
            del self._part_digests[next(iter(self._part_digests))]

    def place(self, block: int) -> tuple[str, PartEntry, int] | None:
        """Return (step, part, first row) of rows that are read from a part; None: they are in memory."""
        entry = self._blocks[block]
        return None if entry.live or entry.part is None else (entry.step, entry.part, entry.first_row)

    def stored_at(self, block: int) -> tuple[PartEntry, int] | None:
        """Return (part, first row) of rows that have reached the storage."""
        entry = self._blocks[block]
        return None if entry.part is None else (entry.part, entry.first_row)

    def held(self, step: str) -> int:
        """Bytes of a step's rows that are in memory."""
        return self._held.get(step, 0)

    def are_full(self, step: str) -> bool:
        """Whether so many rows are in memory, and so many of them are a step's, that it must make no more.

        It is then held up. A step may always hold its share: so one that others have left far behind goes on,
        and takes off them.
        """
        full = self._is_full(step)
        if full:
            self._held_up[step] = None
        return full

    def _is_full(self, step: str) -> bool:
        held = self._held.get(step, 0)
        return self._held_in_all > self.live_bytes and held * self.steps > self.live_bytes

    def no_longer_held_up(self) -> tuple[str, ...]:
        """The steps that were held up, now that rows were let go."""
        steps = tuple(self._held_up)
        self._held_up.clear()
        return steps

    def release(self) -> tuple[int, ...]:
        """Let go of rows in memory that are stored and either needed by nobody or too many."""
        released = [number for number in self._idle if self._is_spare(number)]
        for number in released:
            self._let_go(number)
        released += self._forgotten
        self._idle.clear()
        self._forgotten = []
        if self._held_in_all > self.live_bytes:
            for step, spare in self._spare.items():
                while spare and self._is_full(step):
                    released.append(next(reversed(spare)))  # what came last is read last
                    self._let_go(released[-1])
        return tuple(released)

    def _is_spare(self, number: int) -> bool:
        entry = self._blocks[number]
        wanted = entry.needed and entry.step not in self.read_late
        return entry.live and entry.part is not None and not wanted

    def _let_go(self, number: int) -> None:
        entry = self._blocks[number]
        entry.live = False
        del self._live[number]
        self._spare.get(entry.step, {}).pop(number, None)
        self._held[entry.step] -= entry.nbytes
        self._held_in_all -= entry.nbytes
