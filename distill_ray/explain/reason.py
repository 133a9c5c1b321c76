"""A reason why a step has to run: its kind, a sentence, and what the sentence is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from distill_ray.signature.compare import Change

Kind: TypeAlias = Literal[
    "first run",
    "config",
    "code",
    "data",
    "model",
    "upstream",
    "forced",
    "unfinished",
    "failed",
    "removed",
    "damaged",
    "unknown",
]
"""What made a step run.

- ``first run``: nothing is known of it
- ``config``: a parameter, an input or an output mapping changed
- ``code``: its code changed, or code that it uses
- ``data``: the rows or files that it loads changed
- ``model``: the model that it asks is another one
- ``upstream``: it is as before, and a step above it is not
- ``forced``: the cache is not to be used, here or above
- ``unfinished``: it is as in the last run, which did not finish
- ``failed``: it is as in the last run, in which rows failed, here or above
- ``removed``: it is as in the last run, whose output has been removed
- ``damaged``: its stored output cannot be believed
- ``unknown``: it changed, and what it was before is not stored
"""

CHANGED: frozenset[Kind] = frozenset({"config", "code", "data", "model", "unknown"})
"""The kinds that say: the step function itself is another one."""


@dataclass(frozen=True)
class Reason:
    """One reason why a step has to run.

    Attributes:
        kind: what sort of reason it is.
        text: the reason in words.
        changes: of ``config``, ``model`` and ``data``: the fields that changed.
        code: of ``code``: the pieces of code that changed, by name.
        steps: of ``upstream`` and ``forced``: the steps that it comes from.
    """

    kind: Kind
    text: str
    changes: tuple[Change, ...] = ()
    code: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = self.kind in CHANGED or self.kind == "upstream"
        return f"{self.kind.upper()}: {self.text}" if named and self.kind != "unknown" else self.text

    def to_json(self) -> dict[str, Any]:
        """As plain values, without what is empty."""
        record: dict[str, Any] = {"kind": self.kind, "text": self.text}
        if self.changes:
            record["changes"] = [{"path": c.path, "old": c.old, "new": c.new} for c in self.changes]
        if self.code:
            record["code"] = list(self.code)
        if self.steps:
            record["steps"] = list(self.steps)
        return record
