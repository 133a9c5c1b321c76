"""The units of a step's input, and where their stored outputs are; told by digests alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.cache.units import StoredRows, StoredUnits, batch_key
from distill_ray.steps.base import Step


@dataclass(frozen=True)
class InputUnit:
    """A unit of a step's input.

    Attributes:
        key: what its stored output is found by.
        rows: its rows, for each predecessor.
    """

    key: bytes
    rows: tuple[range, ...]


def units_of(step: Step, inputs: Sequence[bytes]) -> Iterator[InputUnit]:
    """The units, in order: batches, or all rows of a global step.

    Args:
        step: the step.
        inputs: for each predecessor the digests of its rows, 16 bytes a row.
    """
    total = min(len(digests) for digests in inputs) // DIGEST_SIZE
    size = max(total, 1) if step.is_global else step.input_batch_size
    for start in range(0, total, size):
        rows = range(start, min(start + size, total))
        key = batch_key([digests[rows.start * DIGEST_SIZE : rows.stop * DIGEST_SIZE] for digests in inputs])
        yield InputUnit(key, (rows,) * len(inputs))


def find_unit(unit: InputUnit, stored: StoredUnits) -> StoredRows | None:
    """Hand out the stored output of a unit, if there is one left."""
    return stored.take(unit.key)
