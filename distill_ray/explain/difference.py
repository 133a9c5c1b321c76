"""What differs between two step functions, sorted by what a user would call it: config, code, data, model."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distill_ray.explain.reason import Kind, Reason
from distill_ray.signature.compare import MISSING, Change, changes

SHOWN: Final = 3
"""Changes that a sentence names; the rest are counted."""

VALUE_LENGTH: Final = 60
"""Characters of a value that a sentence shows."""

_VALUE_OF: Final = ": value of "
"""What the name of a piece has that holds a value's digest, after `distill_ray.signature.fingerprint`."""

_MODEL_FIELDS: Final = frozenset(
    {"model", "model_id", "model_path", "model_name", "revision", "base_url", "endpoint_name"}
)
_TASK: Final = "task."
"""How the fields of a task begin in the steps that it is taken apart into."""

_DATA_FIELDS: Final = frozenset({"_state", "data"})


@dataclass(frozen=True)
class CodePiece:
    """A piece of code that changed.

    Attributes:
        name: a class, a function, or the value that a name in one has.
        old: its normal form before; None where it is new.
        new: its normal form now; None where it is gone.
    """

    name: str
    old: str | None
    new: str | None

    @property
    def diff(self) -> str:
        """The unified diff of the normal forms; of a value, of which only a digest is kept, a sentence."""
        if _VALUE_OF in self.name:
            what = "is new" if self.old is None else "is gone" if self.new is None else "changed"
            return f"{self.name} {what}"
        lines = difflib.unified_diff(
            (self.old or "").splitlines(),
            (self.new or "").splitlines(),
            "/dev/null" if self.old is None else f"{self.name} (before)",
            "/dev/null" if self.new is None else f"{self.name} (now)",
            lineterm="",
        )
        return "\n".join(lines)


def code_pieces(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[CodePiece, ...]:
    """The pieces of code that differ, by name."""
    names = sorted({*old, *new})
    return tuple(
        CodePiece(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    )


def function_reasons(
    old: Any, new: Any, old_code: Mapping[str, str], new_code: Mapping[str, str]
) -> tuple[Reason, ...]:
    """Why one step function is not the other.

    Args:
        old: the preimage before, as JSON holds it.
        new: the preimage now.
        old_code: the pieces of code before.
        new_code: the pieces of code now.
    """
    sorted_changes: dict[Kind, list[Change]] = {"code": [], "config": [], "model": [], "data": []}
    for change in changes(old, new):
        sorted_changes[_kind(change)].append(change)
    reasons = []
    for kind, found in sorted_changes.items():
        if kind == "code" and found:
            reasons.append(_code_reason(found, code_pieces(old_code, new_code)))
        elif found:
            texts = [data_text(c) if kind == "data" else change_text(c) for c in found]
            reasons.append(Reason(kind, listed(texts), changes=tuple(found)))
    return tuple(reasons)


def _kind(change: Change) -> Kind:
    fields = re.split(r"[.\[]", change.path.removeprefix(_TASK))
    if change.within == () or (change.within[-1] in ("function", "class") and fields[-1] in ("name", "code")):
        return "code"  # a step that became a generator, say; a function that is a parameter
    in_model = "model" in change.within[1 + change.path.startswith(_TASK) :]
    if "_class" in fields:
        return "model" if in_model and fields[-1] == "name" else "code"
    if in_model and ("_state" in fields or fields[-1] in _MODEL_FIELDS):
        return "model"
    if change.within[0] == "generator" and fields[0] in _DATA_FIELDS:
        return "data"
    return "config"


def _code_reason(found: Iterable[Change], pieces: tuple[CodePiece, ...]) -> Reason:
    """The pieces that changed say it all, unless the class has a version or only what names stand for."""
    told = [change_text(c) for c in found if c.within and re.search(r"_class\.(name|version)$", c.path)]
    told = [text.replace("_class.", "class ") for text in told]
    names = tuple(piece.name for piece in pieces)
    if not names and not told:
        told = ["what the names in it stand for"]
    return Reason("code", listed([*names, *told]), changes=tuple(found), code=names)


def change_text(change: Change) -> str:
    """``llm.generation_kwargs.temperature: 0.7 -> 0.8``."""
    path = change.path.removeprefix(_TASK).replace("_state.", "")
    return f"{path}: {_value_text(change.old)} -> {_value_text(change.new)}"


def data_text(change: Change) -> str:
    """How many rows or files there were and are, or which file it is."""
    file = re.match(r"_state\.files\[(\d+)\]", change.path)
    if file:
        return f"file {int(file[1]) + 1} ({change_text(change).rpartition('].')[2]})"
    old, new = _length(change.old), _length(change.new)
    if old is None or new is None:
        return change_text(change)
    what = "files" if change.path == "_state.files" else "rows"
    return f"{old:,} -> {new:,} {what}" if old != new else f"other {what} than before, {new:,} of them"


def _length(described: Any) -> int | None:
    if isinstance(described, list):
        return len(described)
    if isinstance(described, dict) and len(described) == 1:
        kind, content = next(iter(described.items()))
        if kind.startswith("$long") and isinstance(content, list):
            return int(content[0])
    return None


def _value_text(described: Any) -> str:
    if described == MISSING:
        return "not set"
    if isinstance(described, dict) and (length := _length(described)) is not None:
        return f"{length:,} items or characters"
    text = json.dumps(described, ensure_ascii=False)
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 3]}..."


def listed(texts: Sequence[str]) -> str:
    """The first texts, and how many more there are."""
    texts = list(dict.fromkeys(texts))
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")
