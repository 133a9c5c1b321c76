"""Where rows are while a run goes on, and when they may be let go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.writer import WrittenPart
from distill_ray.engine.blocks import Blocks, Edge, Piece, Slice
from distill_ray.engine.messages import StoredPart
from distill_ray.engine.sending import send_work
from distill_ray.engine.step_state import Batch, Run

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
    assert blocks.release() == (first,)
    assert not blocks.are_full("step")


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
