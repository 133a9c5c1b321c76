"""The writer loses nothing that was flushed, and leaves few parts."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import decode_rows, encode_rows, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import StoredUnits, unreplaced
from distill_ray.cache.writer import MERGE, Block, PartWriter, WriterSettings, WrittenPart
from distill_ray.errors import StorageError
from distill_ray.storage import LocalStorage, open_storage

FUNCTION = FunctionId("Step", "f" * 64)
HOUR = 3600.0


@pytest.fixture
def writers() -> Iterator[list[PartWriter]]:
    opened: list[PartWriter] = []
    yield opened
    for writer in opened:
        writer.close()


def open_writer(
    store: CacheStore, writers: list[PartWriter], tag: str = "000", **settings: Any
) -> PartWriter:
    writer = PartWriter(store, FUNCTION, "run", tag, WriterSettings(**{"flush_seconds": HOUR, **settings}))
    writers.append(writer)
    return writer


def key_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def block_of(number: int, rows: list[dict[str, Any]]) -> Block:
    """One call's rows, all of one unit."""
    index = UnitIndex(key_of(number), (len(rows),), row_digests(rows), "", (), 0.5, 2, 3)
    return Block(number, encode_rows(rows), index)


def text_block(number: int, size: int = 10) -> Block:
    return block_of(number, [{"number": number, "text": secrets.token_hex(size // 2)}])


def live_parts(store: CacheStore) -> list[tuple[PartEntry, UnitIndex]]:
    return unreplaced(store.read_indexes(FUNCTION, store.parts(FUNCTION)))


def wait_for_parts(writer: PartWriter, count: int) -> list[WrittenPart]:
    written: list[WrittenPart] = []
    deadline = time.monotonic() + 10
    while len(written) < count:
        assert time.monotonic() < deadline
        written += writer.take_written()
        time.sleep(0.005)
    return written


def final_places(written: Iterable[WrittenPart]) -> dict[int, tuple[str, int]]:
    """Where each block is in the end: later parts replace earlier ones."""
    return {block: (part.entry.name, first) for part in written for block, first in part.blocks}


def test_a_flush_writes_all_and_says_where_each_block_is(
    store: CacheStore, writers: list[PartWriter]
) -> None:
    writer = open_writer(store, writers)
    blocks = [block_of(n, [{"n": n, "row": row} for row in range(n % 3)]) for n in range(10)]
    for block in blocks:
        writer.add(block)
    (part,) = writer.flush()
    table, index = store.read_part(FUNCTION, part.entry.name)
    rows = decode_rows(table)
    for block, (number, first) in zip(blocks, part.blocks, strict=True):
        assert number == block.id
        assert rows[first : first + block.table.num_rows] == decode_rows(block.table)
    assert index.counts == tuple(n % 3 for n in range(10))
    assert index.digests == row_digests(rows)
    assert (index.seconds, index.input_tokens, index.output_tokens) == (5.0, 20, 30)
    assert [entry for entry, _ in live_parts(store)] == [part.entry]


def test_a_unit_without_rows_is_stored_and_found(store: CacheStore, writers: list[PartWriter]) -> None:
    writer = open_writer(store, writers)
    writer.add(block_of(1, []))
    writer.flush()
    unit = StoredUnits(live_parts(store)).take(key_of(1))
    assert unit is not None
    assert unit.rows == 0


def test_rows_that_are_old_enough_are_written_without_a_flush(
    store: CacheStore, writers: list[PartWriter]
) -> None:
    writer = open_writer(store, writers, flush_seconds=0.1)
    started = time.monotonic()
    writer.add(text_block(1))
    writer.add(text_block(2))
    (part,) = wait_for_parts(writer, 1)
    assert time.monotonic() - started >= 0.1
    assert [block for block, _ in part.blocks] == [1, 2]


def test_parts_are_cut_by_size_while_the_step_goes_on(store: CacheStore, writers: list[PartWriter]) -> None:
    writer = open_writer(store, writers, part_bytes=100_000)
    for number in range(100):
        writer.add(text_block(number, size=20_000))
    written = [*wait_for_parts(writer, 5), *writer.flush()]
    sizes = [part.entry.size for part in written]
    assert max(sizes) < 200_000
    assert set(final_places(written)) == set(range(100))


def test_a_backlog_becomes_several_parts_not_one(tmp_path: Path, writers: list[PartWriter]) -> None:
    storage = GatedStorage(str(tmp_path))
    writer = open_writer(CacheStore(storage), writers, part_bytes=100_000)
    for number in range(100):
        writer.add(text_block(number, size=20_000))
    storage.gate.set()
    assert max(part.entry.size for part in writer.flush()) < 200_000


def test_rows_that_compress_to_nothing_are_cut_by_the_size_of_their_index(
    store: CacheStore, writers: list[PartWriter]
) -> None:
    writer = open_writer(store, writers, part_bytes=100_000)
    for number in range(20):
        writer.add(block_of(number, [{"n": 0}] * 2_000))
    assert max(part.entry.size for part in writer.flush()) < 200_000


def test_small_parts_are_merged_as_they_gather_and_at_the_end(
    store: CacheStore, writers: list[PartWriter]
) -> None:
    writer = open_writer(store, writers, flush_seconds=0.0)
    written: list[WrittenPart] = []
    count = MERGE * MERGE + 3
    for number in range(count):
        writer.add(block_of(number, [{"n": number}, {"other": number}] if number % 5 else []))
        written += wait_for_parts(writer, 1)
    before_flush = {name for name, _ in final_places(written).values()}
    assert len(before_flush) <= 3 + 2 * MERGE
    written += writer.flush()
    ((entry, index),) = live_parts(store)
    assert {name for name, _ in final_places(written).values()} == {entry.name}
    rows = decode_rows(store.read_part(FUNCTION, entry.name)[0])
    places = final_places(written)
    stored = StoredUnits([(entry, index)])
    for number in range(count):
        unit = stored.take(key_of(number))
        assert unit is not None
        assert (entry.name, unit.first_row) == places[number]
        expected = [{"n": number}, {"other": number}] if number % 5 else []
        assert rows[unit.first_row : unit.first_row + unit.rows] == expected
        assert unit.digests == row_digests(expected)
        assert stored.take(key_of(number)) is None


def test_merged_parts_that_were_not_removed_do_not_double_units(
    store: CacheStore, writers: list[PartWriter]
) -> None:
    """As after a crash: the writer itself removes nothing."""
    writer = open_writer(store, writers, flush_seconds=0.0)
    for number in range(MERGE * MERGE + 1):
        writer.add(text_block(number))
        wait_for_parts(writer, 1)
    writer.flush()
    everything = store.read_indexes(FUNCTION, store.parts(FUNCTION))
    assert len(everything) > MERGE * MERGE
    assert len(StoredUnits(everything)) == MERGE * MERGE + 1


def test_what_a_merged_part_replaced_may_be_removed(store: CacheStore, writers: list[PartWriter]) -> None:
    writer = open_writer(store, writers, flush_seconds=0.0)
    written: list[WrittenPart] = []
    for number in range(MERGE + 3):
        writer.add(text_block(number))
        written += wait_for_parts(writer, 1)
    written += writer.flush()
    store.delete_parts(FUNCTION, [name for part in written for name in part.replaces])
    assert [entry.name for entry in store.parts(FUNCTION)] == [written[-1].entry.name]
    assert len(StoredUnits(live_parts(store))) == MERGE + 3


def test_large_parts_are_left_alone(store: CacheStore, writers: list[PartWriter]) -> None:
    writer = open_writer(store, writers, part_bytes=30_000)
    for number in range(10):
        writer.add(text_block(number, size=80_000))
    written = writer.flush()
    assert not any(part.replaces for part in written)
    assert len(live_parts(store)) == len(written)


def test_the_writer_goes_on_after_a_flush(store: CacheStore, writers: list[PartWriter]) -> None:
    writer = open_writer(store, writers)
    assert writer.flush() == ()
    for number in range(3):
        writer.add(text_block(number))
        writer.flush()
    assert writer.flush() == ()
    assert len(StoredUnits(live_parts(store))) == 3


def test_writers_of_one_run_do_not_disturb_each_other(store: CacheStore, writers: list[PartWriter]) -> None:
    def work(tag: int) -> None:
        writer = open_writer(store, writers, tag=f"{tag:03d}", flush_seconds=0.0)
        for number in range(30):
            writer.add(text_block(tag * 100 + number))
        writer.flush()

    threads = [threading.Thread(target=work, args=(tag,)) for tag in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = StoredUnits(live_parts(store))
    assert len(stored) == 120
    assert all(stored.take(key_of(tag * 100 + n)) for tag in range(4) for n in range(30))


def test_the_step_waits_where_the_storage_is_far_behind(tmp_path: Path, writers: list[PartWriter]) -> None:
    storage = GatedStorage(str(tmp_path))
    writer = open_writer(CacheStore(storage), writers, part_bytes=1, buffer_bytes=1)
    added = threading.Event()

    def work() -> None:
        for number in range(3):
            writer.add(text_block(number))
        added.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not added.wait(0.2)
    storage.gate.set()
    assert added.wait(10)
    thread.join()
    assert set(final_places(writer.flush())) == {0, 1, 2}


def test_an_error_of_the_storage_reaches_the_step(tmp_path: Path, writers: list[PartWriter]) -> None:
    (tmp_path / "steps").write_text("a file where the cache needs a folder")
    store = CacheStore(open_storage(str(tmp_path)))
    writer = open_writer(store, writers)
    writer.add(text_block(1))
    with pytest.raises(StorageError, match=r"Cannot write .*steps"):
        writer.flush()
    for call in (lambda: writer.add(text_block(2)), writer.take_written, writer.flush):
        with pytest.raises(StorageError, match=r"Cannot write .*steps"):
            call()


def test_a_step_that_waits_hears_of_the_error(tmp_path: Path, writers: list[PartWriter]) -> None:
    (tmp_path / "steps").write_text("a file where the cache needs a folder")
    storage = GatedStorage(str(tmp_path))
    writer = open_writer(CacheStore(storage), writers, flush_seconds=0.0, buffer_bytes=1)
    threading.Timer(0.2, storage.gate.set).start()
    with pytest.raises(StorageError, match="Cannot write"):
        for number in range(3):
            writer.add(text_block(number))


def test_closing_ends_the_thread(store: CacheStore, writers: list[PartWriter]) -> None:
    before = threading.active_count()
    writer = open_writer(store, writers)
    writer.add(text_block(1))
    writer.flush()
    writer.close()
    assert threading.active_count() == before


KILLED = """
import sys
from tests.cache.test_writer import FUNCTION, HOUR, block_of
from distill_ray.cache.store import CacheStore
from distill_ray.cache.writer import PartWriter, WriterSettings
from distill_ray.storage import open_storage
import time
writer = PartWriter(CacheStore(open_storage(sys.argv[1])), FUNCTION, "run", "000", WriterSettings(0.0))
for number in range(1_000_000):
    writer.add(block_of(number, [{"number": number}] * (number % 3)))
    writer.take_written()
    time.sleep(0.001)
"""


@pytest.mark.parametrize("moment", range(5))
def test_what_a_killed_writer_left_is_whole_and_counted_once(store: CacheStore, moment: int) -> None:
    root = store.storage.url
    process = subprocess.Popen([sys.executable, "-c", KILLED, root], cwd=Path(__file__).parents[2])
    folder = Path(root, FUNCTION.parts_folder)
    deadline = time.monotonic() + 30
    while not folder.exists() or len(list(folder.iterdir())) < 5 + 9 * moment:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = live_parts(store)
    stored = StoredUnits(parts)
    rows = {entry.name: decode_rows(store.read_part(FUNCTION, entry.name)[0]) for entry, _ in parts}
    assert len(stored)
    for number in range(len(stored)):
        unit = stored.take(key_of(number))
        assert unit is not None
        assert rows[unit.part.name][unit.first_row :][: unit.rows] == [{"number": number}] * (number % 3)
        assert stored.take(key_of(number)) is None


@dataclass(frozen=True)
class GatedStorage(LocalStorage):
    """A local storage that writes nothing before it is let."""

    gate: threading.Event = field(default_factory=threading.Event)

    def publish(self, path: str, data: bytes) -> None:
        assert self.gate.wait(10)
        super().publish(path, data)


def test_rows_that_shrink_to_next_to_nothing_never_hold_the_step_up(
    store: CacheStore, writers: list[PartWriter]
) -> None:
    writer = open_writer(store, writers, part_bytes=1 << 20, buffer_bytes=1 << 18)
    for number in range(40):
        writer.add(block_of(number, [{"text": "a" * (1 << 16)}]))  # 2.5 MB of rows, a few KB on the storage
    parts = written_by(writer)
    assert sum(len(part.blocks) for part in parts) == 40
    assert len(parts) > 1


def written_by(writer: PartWriter) -> list[WrittenPart]:
    """All parts that no other one replaces."""
    parts = writer.flush()
    replaced = {name for part in parts for name in part.replaces}
    return [part for part in parts if part.entry.name not in replaced]
