"""What a call has made so far: rows, and what their unit index will say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from distill_ray.cache.unit_index import NO_UNIT, Limits, Shape, UnitIndex
from distill_ray.engine.messages import FailedRows, Failure
from distill_ray.types import Row


@dataclass(frozen=True)
class Unit:
    """What was made of one unit.

    Attributes:
        rows: the output rows.
        digests: 16 bytes for each.
        shapes: of a row-wise step, what of each row it gave itself.
        limits: the limits that the rows serve, where the step has one.
    """

    rows: Sequence[Row]
    digests: bytes
    shapes: Sequence[Shape] = ()
    limits: Limits | None = None


@dataclass
class Made:
    """Rows and units of one call, in order. The finished ones are output; what follows is only stored."""

    rows: list[Row] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    wholes: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    limits: list[Limits] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    """To join: for each unit the name of what the step gave once."""
    failed: list[FailedRows] = field(default_factory=list)
    batches: int = 0
    finished: int = 0
    """Units of the batches that are done."""
    retried: int = 0
    """Rows that were tried again."""
    overdue: bool = False
    """The batch after those that are done took too long."""
    failure: Failure | None = None
    last: bool = False
    cost: tuple[float, int, int] | None = None
    """Seconds and tokens that the rows took, where it was not this call that made them."""

    def add(self, unit: Unit, key: bytes, whole: bytes = b"") -> None:
        """Take in a unit; ``whole`` is the digest of a row-wise step's input row."""
        self.rows.extend(unit.rows)
        self.digests.append(unit.digests)
        self.keys.append(key)
        self.wholes.append(whole)
        self.counts.append(len(unit.rows))
        self.shapes.extend(unit.shapes)
        if unit.limits is not None:
            self.limits.append(unit.limits)

    def add_failed(self, failed: FailedRows, unit: Unit, whole: bytes = b"") -> None:
        """Take in a unit that could not be made; the rows in its place are never found again."""
        self.failed.append(failed)
        self.add(unit, NO_UNIT, whole)

    def finish(self, batches: int = 1) -> None:
        """All that was added so far makes up batches that are done."""
        self.batches += batches
        self.finished = len(self.counts)

    def index(self, run: str, cost: tuple[float, int, int]) -> UnitIndex:
        """The index of a part that holds the rows; ``cost`` in seconds and tokens in and out."""
        numbers: dict[Shape, int] = {}
        of_rows = [numbers.setdefault(shape, len(numbers)) for shape in self.shapes]
        seconds, input_tokens, output_tokens = self.cost or cost
        return UnitIndex(
            keys=b"".join(self.keys),
            counts=tuple(self.counts),
            digests=b"".join(self.digests),
            run=run,
            seconds=seconds,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            wholes=b"".join(self.wholes),
            shapes=tuple(numbers),
            row_shapes=tuple((number, len(list(same))) for number, same in groupby(of_rows)),
            limits=tuple(self.limits),
            copied=((0, len(self.answers)),) if self.answers else (),
            answers=b"".join(self.answers),
        )
