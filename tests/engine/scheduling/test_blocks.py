"""Where rows are while a run goes on, and when they may be let go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.rows import split_digests
from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.messages import StoredPart
from distill_ray.engine.scheduling.batches import Batch, Run
from distill_ray.engine.scheduling.blocks import DRIVER_BYTES, SMALL_BYTES, Blocks, Piece, Slice
from distill_ray.engine.scheduling.edge import Edge
from distill_ray.engine.scheduling.sending import send_work

PART = PartEntry("part", 1)


def piece(block: int, start: int, rows: int) -> Piece:
    return Piece(Slice(block, start, rows), bytes(16 * rows))


@given(pushed=st.lists(st.integers(0, 9), max_size=20), wanted=st.lists(st.integers(1, 9), max_size=20))
def test_an_edge_gives_the_rows_in_their_order_however_they_are_cut(
    pushed: list[int], wanted: list[int]
) -> None:
    edge = Edge("source", "step")
    for block, rows in enumerate(pushed):
        edge.push(piece(block, 0, rows))
    expected = [(block, row) for block, rows in enumerate(pushed) for row in range(rows)]
    taken: list[tuple[int, int]] = []
    for rows in wanted:
        if rows > edge.rows:
            break
        slices, digests = edge.take(rows)
        assert sum(s.rows for s in slices) == rows
        assert len(digests) == 16 * rows
        taken += [(s.block, s.start + i) for s in slices for i in range(s.rows)]
    assert taken == expected[: len(taken)]
    assert edge.rows == sum(pushed) - len(taken)


def test_rows_that_are_not_stored_are_never_let_go() -> None:
    blocks = Blocks(live_bytes=0)
    block = blocks.new("step")
    blocks.made(block, nbytes=1000)
    assert blocks.release() == ()
    blocks.written(WrittenPart(PART, ((block, 0),)))
    assert blocks.release() == (block,)


def test_rows_of_which_another_call_said_before_that_they_are_stored_are_let_go_too() -> None:
    blocks = Blocks()
    block = blocks.new("step")
    blocks.written(WrittenPart(PART, ((block, 0),)))
    assert blocks.release() == ()
    blocks.made(block, nbytes=10)
    assert blocks.release() == (block,)


def test_stored_rows_that_nobody_needs_are_let_go() -> None:
    blocks = Blocks()
    block = blocks.new("step")
    blocks.made(block, nbytes=10)
    blocks.need(Slice(block, 0, 5))
    blocks.written(WrittenPart(PART, ((block, 0),)))
    assert blocks.release() == (), "five rows are still to be read"
    blocks.done([Slice(block, 0, 2)])
    assert blocks.release() == ()
    blocks.done([Slice(block, 2, 3)])
    assert blocks.release() == (block,)
    assert blocks.place(block) == ("step", PART, 0)


def test_stored_rows_are_let_go_though_they_are_needed_where_memory_is_full() -> None:
    blocks = Blocks(live_bytes=100)
    first, second = blocks.new("step"), blocks.new("step")
    for block in (first, second):
        blocks.made(block, nbytes=80)
        blocks.need(Slice(block, 0, 5))
    assert blocks.are_full("step")
    blocks.written(WrittenPart(PART, ((first, 0), (second, 5))))
    assert blocks.release() == (second,), "what came first is read first"
    assert not blocks.are_full("step")


def test_a_step_may_hold_its_share_however_much_others_hold() -> None:
    blocks = Blocks(live_bytes=100, steps=2)
    for step, nbytes in (("fast", 90), ("slow", 40)):
        blocks.made(blocks.new(step), nbytes)
    assert blocks.are_full("fast")
    assert not blocks.are_full("slow")
    blocks.made(blocks.new("slow"), nbytes=20)
    assert blocks.are_full("slow")


def test_small_rows_weigh_more_where_there_is_much_room_since_the_driver_holds_them() -> None:
    blocks = Blocks(live_bytes=100 * DRIVER_BYTES)
    for _ in range(2 * DRIVER_BYTES // SMALL_BYTES):
        blocks.made(blocks.new("step"), SMALL_BYTES - 1)
    assert blocks.are_full("step")


@given(data=st.data(), ahead=st.integers(1, 20))
def test_digests_that_were_left_out_come_back_from_memory_or_from_the_part(
    data: st.DataObject, ahead: int
) -> None:
    blocks, edge = Blocks(), Edge("source", "sink", rows_ahead=ahead)
    expected: list[bytes] = []
    parts: dict[str, bytes] = {}
    for number in range(data.draw(st.integers(1, 10))):
        block, rows = blocks.new("source"), data.draw(st.integers(1, 9))
        digests = [bytes([number, row, *bytes(14)]) for row in range(rows)]
        blocks.made(block, 10, digests=b"".join(digests))
        edge.push(Piece(Slice(block, 0, rows), b"".join(digests)))
        expected += digests
        if data.draw(st.booleans()):
            parts[f"part-{number}"] = bytes(16 * 3) + b"".join(digests)
            blocks.written(WrittenPart(PartEntry(f"part-{number}", 1), ((block, 3),)))
    edge.closed = True
    taken: list[bytes] = []
    while not (edge.ended and edge.rows == 0):
        while (lacking := edge.draw_near(blocks)) is not None:
            part, _ = blocks.stored_at(lacking) or (None, 0)
            assert part is not None, "digests of rows that are in no part are at hand"
            blocks.digests_read(part.name, parts[part.name])
        assert edge.rows, "there are more, so some of them are at hand"
        assert edge.rows < ahead + 9
        slices, digests_of = edge.take(data.draw(st.integers(1, edge.rows)))
        assert len(digests_of) == 16 * sum(each.rows for each in slices)
        taken += split_digests(digests_of)
    assert taken == expected


def test_a_call_reads_what_was_let_go_from_its_part_and_the_rest_by_reference() -> None:
    blocks = Blocks()
    stored, live = blocks.new("source"), blocks.new("source")
    blocks.made(stored, nbytes=10)
    blocks.written(WrittenPart(PART, ((stored, 100),)))
    blocks.release()
    blocks.made(live, nbytes=10)
    run = Run(place=0, first_row=7, rows=5, slices=((Slice(stored, 2, 3), Slice(live, 0, 2)),))
    batch = Batch((run,), key=b"k")
    call = send_work("step", 1, 9, [batch], blocks)
    assert call.live == (live,)
    assert call.work.sources == (StoredPart("source", "part"), None)
    assert [(r.source, r.start, r.rows) for r in call.work.inputs[0]] == [(0, 102, 3), (1, 0, 2)]


def test_rows_that_are_read_when_all_are_there_are_not_held_once_they_are_stored() -> None:
    blocks = Blocks(read_late=frozenset({"early"}))
    for step in ("early", "now"):
        block = blocks.new(step)
        blocks.made(block, 100)
        blocks.need(Slice(block, 0, 1))
    assert blocks.release() == ()
    blocks.written(WrittenPart(PART, ((1, 0), (2, 0))))
    assert blocks.release() == (1,)
    assert blocks.place(1) == ("early", PART, 0)
    assert blocks.is_live(2)
