"""What there is to say of a step before a run: why it has to run, what it will find, what that cost once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

from distill_ray.explain.difference import CodePiece
from distill_ray.explain.reason import Reason
from distill_ray.explain.row_changes import RowChanges

SHOWN: Final = 100
"""Row numbers that a record names; the rest are counted."""

Certainty: TypeAlias = Literal["exact", "at most", "at least", "unknown"]


@dataclass(frozen=True)
class Reuse:
    """What a step will find of what is stored, and what that cost when it was made.

    Attributes:
        certainty: whether the numbers are known before the run; ``at most`` where its input is not.
        rows: rows of output that are found.
        input_rows: rows that it is given; None where that is not known before the run.
        input_rows_to_compute: rows of them that it has to work on; None likewise.
        seconds: seconds of computing that the found rows took, over all replicas. Of a part of which only
            some units are found their share by number.
        input_tokens: tokens that models read for them, likewise.
        output_tokens: tokens that models wrote for them, likewise.
    """

    certainty: Certainty
    rows: int = 0
    input_rows: int | None = None
    input_rows_to_compute: int | None = None
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class DataChange:
    """How the rows that a source gives differ from those that it gave before.

    Attributes:
        rows: by number.
        looked_at: changed rows of which both versions were read, to say which columns changed.
        columns: for each column in how many of these it changed.
    """

    rows: RowChanges
    looked_at: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """``+1,000, 12 changed of 5,000 rows; changed columns: text (12 of the 12 looked at)``."""
        if not self.columns:
            return self.rows.text
        told = ", ".join(f"{name} ({count:,})" for name, count in self.columns.items())
        looked = len(self.rows.changed)
        note = "" if self.looked_at == looked else f", in the {self.looked_at:,} that were looked at"
        return f"{self.rows.text}; changed columns{note}: {told}"

    def to_json(self) -> dict[str, Any]:
        """As plain values; of row numbers the first ones."""
        rows = self.rows
        return {
            "rows_before": rows.before,
            "rows_now": rows.now,
            "added": len(rows.added),
            "deleted": len(rows.deleted),
            "changed": len(rows.changed),
            "moved": rows.moved,
            "added_rows": list(rows.added[:SHOWN]),
            "deleted_rows": list(rows.deleted[:SHOWN]),
            "changed_rows": [list(pair) for pair in rows.changed[:SHOWN]],
            "looked_at": self.looked_at,
            "columns": dict(self.columns),
        }


@dataclass(frozen=True)
class StepExplanation:
    """What there is to say of one step.

    Attributes:
        step: the step's name.
        decision: as the plan has it.
        text: why, in a sentence.
        reasons: the same as data; none of a hit.
        compared_with: what it was compared with, in words; empty where there was nothing.
        code: the pieces of code that changed.
        data: of a source whose rows could be compared: how they differ.
        data_note: of a source whose rows could not: why.
        reuse: what it will find.
        blind_spots: what the fingerprint of its code cannot see, in sentences.
    """

    step: str
    decision: str
    text: str
    reasons: tuple[Reason, ...]
    compared_with: str = ""
    code: tuple[CodePiece, ...] = ()
    data: DataChange | None = None
    data_note: str = ""
    reuse: Reuse = Reuse("unknown")
    blind_spots: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "decision": self.decision,
            "reason": self.text,
            "reasons": [reason.to_json() for reason in self.reasons],
            "compared_with": self.compared_with,
            "code": [{"name": piece.name, "diff": piece.diff} for piece in self.code],
            "data": self.data.to_json() if self.data else None,
            "data_note": self.data_note,
            "reuse": asdict(self.reuse),
            "blind_spots": list(self.blind_spots),
        }


@dataclass(frozen=True)
class Explanation:
    """What there is to say of the steps of a pipeline, before a run.

    Attributes:
        pipeline: the pipeline's name.
        steps: in an order in which each comes after its predecessors.
    """

    pipeline: str
    steps: tuple[StepExplanation, ...]

    def __getitem__(self, name: str) -> StepExplanation:
        for step in self.steps:
            if step.step == name:
                return step
        raise KeyError(
            f"There is no step '{name}' in the explanation: {', '.join(s.step for s in self.steps)}."
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"pipeline": self.pipeline, "steps": {step.step: step.to_json() for step in self.steps}}
