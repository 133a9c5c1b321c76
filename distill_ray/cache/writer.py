"""Gathers a replica's output into parts and writes them in the background, so that a crash costs seconds.

Parts are cut by size, by age and at the end. Small ones, which a slow step leaves, are merged as they
gather: eight of one tier become one of the next, so a finished output consists of few parts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from distill_ray.cache.arrays import from_stream, to_stream
from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import concat_tables
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex, concat_indexes


@dataclass(frozen=True)
class WriterSettings:
    """When a part is cut.

    Attributes:
        flush_seconds: age of the oldest row at which a part is written: what a crash may cost.
        part_bytes: size of a part on the storage that is aimed at.
        buffer_bytes: bytes in memory above which the step waits for the writer; what it is writing may take
            as much once more.
    """

    flush_seconds: float = 5.0
    part_bytes: int = 12 << 20
    buffer_bytes: int = 128 << 20


STREAM_BYTES = 16 << 20
"""Larger tables are pickled as Ray does it, without a copy of their own."""


@dataclass(frozen=True)
class Block:
    """Rows that one call made, with the units they belong to.

    Attributes:
        id: the engine's name for these rows.
        table: the rows.
        index: what they were made from.
    """

    id: int
    table: pa.Table
    index: UnitIndex

    def __reduce__(self) -> tuple[Any, ...]:
        small = self.table.nbytes <= STREAM_BYTES
        return _rebuilt, (self.id, to_stream(self.table) if small else self.table, self.index)


def _rebuilt(block: int, table: pa.Buffer | pa.Table, index: UnitIndex) -> Block:
    return Block(block, from_stream(table) if isinstance(table, pa.Buffer) else table, index)


@dataclass(frozen=True)
class WrittenPart:
    """A part that has reached the storage.

    Attributes:
        entry: its name and size.
        blocks: ``(block id, first row in the part)``.
        replaces: names of the parts that were merged into it.
    """

    entry: PartEntry
    blocks: tuple[tuple[int, int], ...]
    replaces: tuple[str, ...] = ()


class _Small(NamedTuple):
    """A part that is to be merged with others, and how many bytes its rows take in memory."""

    part: WrittenPart
    nbytes: int


MERGE = 8
"""Small parts of one tier that become one of the next."""

SMALL = 1 / 3
"""A part below this share of ``part_bytes`` is merged with others."""

_BASE64 = 4 / 3
"""Bytes in a part for each byte of keys and digests."""


def writer_tag(step: int, replica: int) -> str:
    """Tells a replica's parts from those of the run's others, by the numbers of step and replica."""
    return f"{step:03d}-{replica:03d}"


def part_stem(run: str, tag: str) -> str:
    """What the names of all parts begin with that the run's writer with this tag makes, in their order."""
    return f"{run}-{tag}-"


@dataclass
class PartWriter:
    """Writes one replica's output; one thread of its own, started with the first block.

    Attributes:
        store: the cache root.
        function: the step function whose rows these are.
        run: the run's id.
        tag: tells this writer's parts from those of the run's other writers.
        settings: when parts are cut.
    """

    store: CacheStore
    function: FunctionId
    run: str
    tag: str
    settings: WriterSettings = field(default_factory=WriterSettings)

    def __post_init__(self) -> None:
        self._change = threading.Condition()
        self._buffer: deque[tuple[float, Block]] = deque()
        self._buffered = 0
        self._indexed = 0
        self._ratio = 0.5
        self._written: list[WrittenPart] = []
        self._tiers: list[list[_Small]] = []
        self._count = 0
        self._draining = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def add(self, block: Block) -> None:
        """Take rows over; waits only where the storage is slower than the step for long.

        Raises:
            Exception: what went wrong in the background; so do the other methods.
        """
        with self._change:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="part-writer", daemon=True)
                self._thread.start()
            self._change.wait_for(lambda: self._buffered < self.settings.buffer_bytes or self._error)
            self._raise_error()
            was_empty = not self._buffer
            self._buffer.append((time.monotonic(), block))
            self._buffered += block.table.nbytes
            self._indexed += block.index.nbytes
            if was_empty or self._is_due():  # to wake the other thread costs this one a millisecond
                self._change.notify_all()

    def take_written(self) -> tuple[WrittenPart, ...]:
        """Parts that have reached the storage since the last call."""
        with self._change:
            self._raise_error()
            written, self._written = self._written, []
            return tuple(written)

    def flush(self) -> tuple[WrittenPart, ...]:
        """Write everything that is left, merge what is small, and return `take_written`."""
        with self._change:
            if self._thread is None:
                return ()
            self._draining = True
            self._change.notify_all()
            self._change.wait_for(lambda: not self._draining or self._error)
        return self.take_written()

    def close(self) -> None:
        """End the thread once it has written what it is at. What was not flushed is lost."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # On the writer's thread.

    def _run(self) -> None:
        try:
            while (blocks := self._next_blocks()) is not None:
                if blocks:
                    self._write(blocks)
                    self._merge_full_tiers()
                else:
                    self._merge_all()
                    self._drained()
        except BaseException as error:  # handed to the step's thread
            with self._change:
                self._error = error
                self._change.notify_all()

    def _next_blocks(self) -> list[Block] | None:
        """Wait for a part's worth of blocks; none: all is written that was to be; None: the end."""
        with self._change:
            while not self._closed and not self._draining and not self._is_due():
                self._change.wait(self._seconds_left())
            if self._closed:
                return None
            blocks: list[Block] = []
            size = 0.0
            while self._buffer and size < self.settings.part_bytes:
                block = self._buffer.popleft()[1]
                blocks.append(block)
                self._buffered -= block.table.nbytes
                self._indexed -= block.index.nbytes
                size += self._stored_bytes(block.table.nbytes, block.index.nbytes)
            self._change.notify_all()
            return blocks

    def _drained(self) -> None:
        with self._change:
            self._draining = bool(self._buffer)
            self._change.notify_all()

    def _is_due(self) -> bool:
        if not self._buffer:
            return False
        full = self._stored_bytes(self._buffered, self._indexed) >= self.settings.part_bytes
        # Rows that shrink a lot on their way to the storage: the step would wait for their age.
        large = 2 * self._buffered >= self.settings.buffer_bytes
        return full or large or self._seconds_left() <= 0

    def _seconds_left(self) -> float:
        """Seconds until the oldest block must be written."""
        if not self._buffer:
            return threading.TIMEOUT_MAX
        return self._buffer[0][0] + self.settings.flush_seconds - time.monotonic()

    def _stored_bytes(self, rows: int, index: int) -> float:
        """Bytes that rows and their index will take in a part, going by the part before."""
        return rows * self._ratio + index * _BASE64

    def _write(self, blocks: Sequence[Block]) -> None:
        table = concat_tables([block.table for block in blocks])
        index = concat_indexes([block.index for block in blocks], self.run)
        entry = self.store.write_part(self.function, self._next_name(), table, index)
        if table.nbytes > 1 << 16:
            self._ratio = max(0.0, entry.size - index.nbytes * _BASE64) / table.nbytes
        positions: list[tuple[int, int]] = []
        first = 0
        for block in blocks:
            positions.append((block.id, first))
            first += block.table.num_rows
        self._publish(WrittenPart(entry, tuple(positions)), tier=0, nbytes=table.nbytes)

    def _next_name(self) -> str:
        self._count += 1
        return f"{part_stem(self.run, self.tag)}{self._count:05d}"

    def _publish(self, part: WrittenPart, tier: int, nbytes: int) -> None:
        with self._change:
            self._written.append(part)
        # To be merged they are all read again.
        if part.entry.size < self.settings.part_bytes * SMALL and nbytes < self.settings.buffer_bytes / 4:
            while len(self._tiers) <= tier:
                self._tiers.append([])
            self._tiers[tier].append(_Small(part, nbytes))

    def _merge_full_tiers(self) -> None:
        tier = 0
        while tier < len(self._tiers):
            if len(self._tiers[tier]) >= MERGE:
                parts, self._tiers[tier] = self._tiers[tier], []
                self._merge(parts, tier + 1)
            tier += 1

    def _merge_all(self) -> None:
        """At the end: what is still small becomes parts of about the size that is aimed at."""
        oldest_first = [small for tier in reversed(self._tiers) for small in tier]
        group: list[_Small] = []
        for small in oldest_first:
            group.append(small)
            stored, nbytes = sum(each.part.entry.size for each in group), sum(each.nbytes for each in group)
            if stored >= self.settings.part_bytes or 2 * nbytes >= self.settings.buffer_bytes:
                self._merge(group, tier=0)
                group = []
        if len(group) > 1:
            self._merge(group, tier=0)
        self._tiers = []

    def _merge(self, small: Sequence[_Small], tier: int) -> None:
        parts = [each.part for each in small]
        read = [self.store.read_part(self.function, part.entry.name) for part in parts]
        table = concat_tables([rows for rows, _ in read])
        names = tuple(part.entry.name for part in parts)
        index = concat_indexes([index for _, index in read], self.run, merged=names)
        entry = self.store.write_part(self.function, self._next_name(), table, index)
        positions: list[tuple[int, int]] = []
        first = 0
        for part, (rows, _) in zip(parts, read, strict=True):
            positions.extend((block, first + row) for block, row in part.blocks)
            first += rows.num_rows
        self._publish(WrittenPart(entry, tuple(positions), replaces=names), tier, table.nbytes)
