"""A step's input, cut into what its replicas are called with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distill_ray.cache.units import StoredRows
from distill_ray.engine.messages import Purpose
from distill_ray.engine.scheduling.blocks import Slice

MAX_DEATHS = 3
"""Processes that may die at one batch until it is halved, or given up."""

MAX_LOSSES = 20
"""Replicas that may be lost with their nodes at one batch before the run ends."""


@dataclass(frozen=True)
class Run:
    """Rows that follow each other in a step's input, and whose output rows follow each other too.

    Attributes:
        place: its position among all that make up the step's output.
        first_row: number of its first row in the step's input.
        rows: number of rows.
        slices: for each predecessor where the rows are.
    """

    place: int
    first_row: int
    rows: int
    slices: tuple[tuple[Slice, ...], ...]


@dataclass(frozen=True)
class Batch:
    """One batch of a step's input; that of a row-wise step may have been gathered from several runs.

    Attributes:
        runs: the rows.
        key: its content's key; empty for a row-wise step.
        purpose: what is to be done with it.
        stored: to join: what is stored of each row; to check: what is stored of the batch.
        deaths: how many processes died at it, counted until it is halved or given up.
        losses: how many replicas were lost with their nodes at it.
        deaths_of: what each process that ever died at these rows died of, in words.
        starved: one of them was ended since memory was full.
        reason: why it is given up.
    """

    runs: tuple[Run, ...]
    key: bytes = b""
    purpose: Purpose = Purpose.COMPUTE
    stored: tuple[StoredRows, ...] = ()
    deaths: int = 0
    losses: int = 0
    deaths_of: tuple[str, ...] = ()
    starved: bool = False
    reason: str = ""

    @property
    def is_suspect(self) -> bool:
        """Whether it is at its last try: by itself, so that no other batch is to blame if that fails, too."""
        return self.deaths >= MAX_DEATHS - 1

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(run.rows for run in self.runs)

    @property
    def first_row(self) -> int:
        """Number of its first row in the step's input."""
        return self.runs[0].first_row

    @property
    def end_row(self) -> int:
        """Number of the row after its last one in the step's input."""
        return self.runs[-1].first_row + self.runs[-1].rows

    @property
    def slices(self) -> Iterator[Slice]:
        """Where its rows are."""
        return (piece for run in self.runs for pieces in run.slices for piece in pieces)
