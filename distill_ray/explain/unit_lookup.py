"""The units of a step's input, and where their stored outputs are; told by digests alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distill_ray.cache.rows import DIGEST_SIZE, split_digests
from distill_ray.cache.units import StoredRows, StoredUnits, batch_key, row_keys
from distill_ray.steps.base import Step, is_row_wise


@dataclass(frozen=True)
class InputUnit:
    """A unit of a step's input.

    Attributes:
        rows: its rows, for each predecessor.
        key: what its stored output is found by; empty where that is not known.
        whole: of a row-wise step: what it is found by where no column of the row has changed; else empty.
    """

    rows: tuple[range, ...]
    key: bytes
    whole: bytes = b""


def units_of(step: Step, inputs: Sequence[bytes], declared: bytes | None = None) -> Iterator[InputUnit]:
    """The units, in order: rows of a row-wise step, batches, or all rows of a global step.

    Args:
        step: the step.
        inputs: for each predecessor the digests of its rows, 16 bytes a row.
        declared: for a row-wise step those of the declared columns of its first predecessor's rows.
    """
    if is_row_wise(step):
        yield from _rows(step, inputs, declared)
        return
    total = min(len(digests) for digests in inputs) // DIGEST_SIZE
    size = max(total, 1) if step.is_global else step.input_batch_size
    for start in range(0, total, size):
        rows = range(start, min(start + size, total))
        key = batch_key([digests[rows.start * DIGEST_SIZE : rows.stop * DIGEST_SIZE] for digests in inputs])
        yield InputUnit((rows,) * len(inputs), key)


def _rows(step: Step, inputs: Sequence[bytes], declared: bytes | None) -> Iterator[InputUnit]:
    strides = step.strides or (1,) * len(inputs)
    others = list(zip(inputs[1:], strides[1:], strict=True))
    wholes = split_digests(row_keys(inputs[0], others))
    keys = [b""] * len(wholes) if declared is None else split_digests(row_keys(declared, others))
    for number, (key, whole) in enumerate(zip(keys, wholes, strict=True)):
        rows = tuple(range(number * stride, (number + 1) * stride) for stride in strides)
        yield InputUnit(rows, key, whole)


def find_units(units: Sequence[InputUnit], stored: StoredUnits) -> list[StoredRows | None]:
    """Hand out the stored outputs of units, as a run does: first those of rows of which nothing changed."""
    wholes = [stored.take_whole(unit.whole) if unit.whole else None for unit in units]
    return [
        found if found is not None or not unit.key else stored.take(unit.key)
        for unit, found in zip(units, wholes, strict=True)
    ]
