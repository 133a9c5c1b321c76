"""How rows flow through a row-wise step: each is looked up by itself, and those that miss fill batches again.

A row is found by all of its columns, and then its stored output is referenced as it is; or by its declared
columns only, and then the output is put together from what the step gave and from the other columns as they
are now. The digests of the declared columns are not known to the driver: it asks for those that it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill_ray.cache.rows import DIGEST_SIZE, split_digests
from distill_ray.cache.units import StoredRows, row_keys
from distill_ray.engine.actions import ReadDigests, ReadKeys
from distill_ray.engine.messages import Purpose, StoredPart, UnitsFound
from distill_ray.engine.scheduling.batches import Batch, Run
from distill_ray.engine.scheduling.blocks import Blocks, Slice
from distill_ray.engine.scheduling.row_flow import (
    draw_near,
    enough_pending,
    form_batches,
    is_checked,
    look_again_for_batches,
    reuse,
)
from distill_ray.engine.scheduling.step_state import Gathering, StepState, Window

ROWS_AT_ONCE = 1_000
"""Rows that are looked up at once at most, and those that are put together at once."""


def take_rows(state: StepState, blocks: Blocks) -> Iterator[ReadDigests | ReadKeys]:
    """Form batches of a step's rows at hand, and of those that come to be at hand as these are taken."""
    before = -1
    while state.offset != before:
        before = state.offset
        yield from draw_near(state, blocks)
        if state.spec.columns is None:
            form_batches(state, blocks)
        else:
            yield from form_row_batches(state, blocks)


def form_row_batches(state: StepState, blocks: Blocks) -> Iterator[ReadKeys]:
    """Look up the rows that are there, and gather those that miss into full batches."""
    while not enough_pending(state):
        if state.window is None:
            state.window = _next_window(state)
        window = state.window
        if window is None:
            break
        if state.awaited and None in window.found:
            known = window.found.index(None)
            if not known:
                return
            window, state.window = _divided(state, window, known)
            _take_over(state, blocks, window, window.wholes)
            continue
        if _needs_keys(state, window):
            yield from _ask_for_keys(state, blocks, window)
        keys = _keys(state, blocks, window)
        if keys is None:
            return
        state.window = None
        _take_over(state, blocks, window, keys)
    if state.inputs_used_up:
        for gathering in state.gatherings:
            _close(state, gathering)


def _next_window(state: StepState) -> Window | None:
    """The next rows to look up, all of one block of the first predecessor; None: there are none yet."""
    edges = list(enumerate(state.next_inputs))
    rows = min((edge.rows // state.spec.stride(number) for number, edge in edges), default=0)
    if state.converging is not None:
        rows = min(rows, state.converging.at_most())
    if not rows:
        return None
    rows = min(rows, edges[0][1].head.slice.rows, ROWS_AT_ONCE)
    if state.converging is not None:
        state.converging.take(rows)
    taken = [edge.take(rows * state.spec.stride(number)) for number, edge in edges]
    wholes = _row_keys(state, [digests for _, digests in taken])
    found: list[StoredRows | None] = [None] * rows
    if len(state.stored):
        found = [state.stored.take_whole(whole) for whole in split_digests(wholes)]
    window = Window(
        first_row=state.offset,
        slices=tuple(tuple(slices) for slices, _ in taken),
        digests=tuple(digests for _, digests in taken),
        wholes=wholes,
        found=found,
    )
    state.offset += rows
    return window


def units_found(state: StepState, event: UnitsFound, blocks: Blocks) -> None:
    """Another run has stored more of a step: take over what waits for it."""
    state.stored.add(event.parts)
    state.awaited = bool(event.holder)
    if state.spec.columns is None:
        look_again_for_batches(state, blocks)
    else:
        _look_again_for_rows(state)


def _look_again_for_rows(state: StepState) -> None:
    """More is stored than when the rows were looked up that are at hand."""
    if state.window is not None:
        wholes = split_digests(state.window.wholes)
        state.window.found[:] = [
            each or state.stored.take_whole(whole)
            for each, whole in zip(state.window.found, wholes, strict=True)
        ]


def _divided(state: StepState, window: Window, rows: int) -> tuple[Window, Window]:
    """A window's first rows, and those after them."""

    def part(start: int, end: int) -> Window:
        strides = [state.spec.stride(number) * DIGEST_SIZE for number in range(len(window.digests))]
        return Window(
            first_row=window.first_row + start,
            slices=_cut(state, window, start, end),
            digests=tuple(
                digests[start * stride : end * stride]
                for digests, stride in zip(window.digests, strides, strict=True)
            ),
            wholes=window.wholes[start * DIGEST_SIZE : end * DIGEST_SIZE],
            found=window.found[start:end],
        )

    return part(0, rows), part(rows, len(window.found))


def _needs_keys(state: StepState, window: Window) -> bool:
    """Whether some of a window's rows may be found by their keys only."""
    return len(state.stored) > 0 and None in window.found


def _keys(state: StepState, blocks: Blocks, window: Window) -> bytes | None:
    """The keys of a window's rows; None: they are being read. Where none is needed, any will do."""
    if not _needs_keys(state, window):
        return window.wholes
    (first,) = window.slices[0]
    declared = blocks.keys(first, state.spec.columns or ())
    return None if declared is None else _row_keys(state, [declared, *window.digests[1:]])


def _row_keys(state: StepState, digests: Sequence[bytes]) -> bytes:
    others = [(each, state.spec.stride(number)) for number, each in enumerate(digests[1:], 1)]
    return row_keys(digests[0], others)


def _ask_for_keys(state: StepState, blocks: Blocks, window: Window) -> Iterator[ReadKeys]:
    """Ask for the keys of a window's block, and of the last one that waits: it is read in the meantime."""
    columns = state.spec.columns or ()
    waiting = [edge.tail.slice.block for edge in state.next_inputs[:1] if edge.rows]
    wanted = [window.slices[0][0].block, *waiting]
    for block in dict.fromkeys(wanted):
        if block in state.asked_for_keys or blocks.knows_keys(block, columns) or not blocks.is_there(block):
            continue
        state.asked_for_keys.add(block)
        place = blocks.place(block)
        if place is None:
            yield ReadKeys(state.spec.name, block, columns, None)
        else:
            step, part, first_row = place
            yield ReadKeys(state.spec.name, block, columns, StoredPart(step, part.name), first_row)


def _take_over(state: StepState, blocks: Blocks, window: Window, keys: bytes) -> None:
    """Let stored rows be output where there are any, and gather the others, in runs as long as may be."""
    found = list(window.found)
    # None: it is stored as it is wanted.
    fates: list[Purpose | None] = [Purpose.COMPUTE if each is None else None for each in found]
    if len(state.stored):
        known = Purpose.JOIN if state.spec.joins_input else None
        for row, key in enumerate(split_digests(keys)):
            if found[row] is None and (stored := state.stored.take(key)) is not None:
                found[row], fates[row] = stored, known
    start = 0
    while start < len(found):
        if fates[start] is None:
            end = _end_of_fate(fates, start, len(found))
            _reuse_rows(state, blocks, window, range(start, end), found)
        else:
            gathering = state.missing if fates[start] is Purpose.COMPUTE else state.changed
            end = _end_of_fate(fates, start, _size(state, gathering) - gathering.rows)
            of_run = [each for each in found[start:end] if each is not None]
            _gather(state, gathering, _run(state, window, start, end), of_run)
        start = end


def _reuse_rows(
    state: StepState, blocks: Blocks, window: Window, rows: range, found: Sequence[StoredRows | None]
) -> None:
    """Let stored rows be output."""
    state.counters.rows_in += len(rows)
    for stretch in _stretches([each for each in found[rows.start : rows.stop] if each is not None]):
        reuse(state, blocks, state.new_place(), stretch)
    _check_some(state, blocks, window, rows, found)
    for pieces in _cut(state, window, rows.start, rows.stop):
        blocks.done(pieces)


def _stretches(stored: Sequence[StoredRows]) -> Iterator[StoredRows]:
    """Stored rows in order, those that follow each other in their part as one."""
    digests: list[bytes | memoryview] = []
    part, first_row, rows = stored[0].part, stored[0].first_row, 0
    for each in stored:
        if each.part is not part or each.first_row != first_row + rows:
            yield StoredRows(part, first_row, rows, b"".join(digests))
            part, first_row, rows, digests = each.part, each.first_row, 0, []
        rows += each.rows
        digests.append(each.digests)
    yield StoredRows(part, first_row, rows, b"".join(digests))


def _end_of_fate(fates: Sequence[Purpose | None], start: int, room: int) -> int:
    end = start + 1
    while end < len(fates) and fates[end] is fates[start] and end - start < room:
        end += 1
    return end


def _run(state: StepState, window: Window, start: int, end: int) -> Run:
    return Run(state.new_place(), window.first_row + start, end - start, _cut(state, window, start, end))


def _cut(state: StepState, window: Window, start: int, end: int) -> tuple[tuple[Slice, ...], ...]:
    """Where some of a window's rows are, for each predecessor."""
    cut = []
    for number, slices in enumerate(window.slices):
        stride, found, first = state.spec.stride(number), [], 0
        for each in slices:
            low, high = max(start * stride, first), min(end * stride, first + each.rows)
            if low < high:
                found.append(Slice(each.block, each.start + low - first, high - low))
            first += each.rows
        cut.append(tuple(found))
    return tuple(cut)


def _check_some(
    state: StepState, blocks: Blocks, window: Window, rows: range, found: Sequence[StoredRows | None]
) -> None:
    """Have some rows computed again to compare."""
    if not state.spec.check_share:
        return
    for row in rows:
        stored = found[row]
        whole = window.wholes[row * DIGEST_SIZE : (row + 1) * DIGEST_SIZE]
        if stored is None or not is_checked(whole, state.spec.check_share):
            continue
        slices = _cut(state, window, row, row + 1)
        for each in slices:
            for piece in each:
                blocks.need(piece)
        _gather(state, state.checked, Run(-1, window.first_row + row, 1, slices), [stored])


def _size(state: StepState, gathering: Gathering) -> int:
    """Rows in a full batch."""
    return ROWS_AT_ONCE if gathering.purpose is Purpose.JOIN else state.spec.batch_size


def _gather(state: StepState, gathering: Gathering, run: Run, stored: Sequence[StoredRows]) -> None:
    if gathering.runs and len(gathering.runs[0].slices) != len(run.slices):
        _close(state, gathering)  # of the batch before, other steps' rows are joined
    gathering.runs.append(run)
    gathering.stored.extend(stored)
    gathering.rows += run.rows
    if gathering.rows >= _size(state, gathering):
        _close(state, gathering)


def _close(state: StepState, gathering: Gathering) -> None:
    """Let what was gathered be a batch."""
    if gathering.runs:
        batch = Batch(tuple(gathering.runs), b"", gathering.purpose, tuple(gathering.stored))
        state.pending_of(gathering.purpose).append(batch)
        gathering.runs, gathering.stored, gathering.rows = [], [], 0
