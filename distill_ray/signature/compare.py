"""What differs between two described trees: the fields that changed, by path.

Works on what `distill_ray.signature.encode.describe` gives, also after a way through JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from distill_ray.signature.encode import step_into

MISSING = "<missing>"
"""Stands for a field that one of the trees does not have."""


@dataclass(frozen=True)
class Change:
    """One field that differs.

    Attributes:
        path: where it is, such as ``llm.generation_kwargs.stop[2]``.
        old: its described value before, or `MISSING`.
        new: its described value now, or `MISSING`.
        within: the kinds that hold it, outermost first, such as ``("step", "model")``.
    """

    path: str
    old: Any
    new: Any
    within: tuple[str, ...] = field(default=(), compare=False, repr=False)


def changes(old: Any, new: Any, path: str = "") -> tuple[Change, ...]:
    """The smallest parts that differ, in the order of their paths. 1, 1.0 and True are different.

    Kinds that `describe` writes as ``{"$kind": content}`` are no part of a path.

    Example:
        >>> changes({"a": 1, "b": 2}, {"a": 1, "b": 3})
        (Change(path='b', old=2, new=3),)
    """
    return tuple(_changes(old, new, path, ()))


def _changes(old: Any, new: Any, path: str, within: tuple[str, ...]) -> Iterator[Change]:
    kind = _kind(old)
    is_digest = kind is not None and kind.startswith("$long")  # a length and a digest: one value
    if isinstance(old, dict) and isinstance(new, dict) and kind == _kind(new) and not is_digest:
        inside = within if kind is None else (*within, kind.removeprefix("$"))
        for key in sorted({*old, *new}):
            inner = path if key == kind else _joined(path, key)
            if key in old and key in new:
                yield from _changes(old[key], new[key], inner, inside)
            else:
                yield Change(inner, old.get(key, MISSING), new.get(key, MISSING), inside)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, now, f"{path}[{index}]", within)
    elif type(old) is not type(new) or repr(old) != repr(new):  # 0.0 == -0.0
        yield Change(path, old, new, within)


def _kind(described: Any) -> str | None:
    """``"$set"`` of ``{"$set": [...]}``; a user's own dict never has such a key."""
    only = next(iter(described)) if isinstance(described, dict) and len(described) == 1 else None
    return only if only is not None and only.startswith("$") else None


def _joined(path: str, key: str) -> str:
    return f"{path}{step_into(key)}" if path else step_into(key).lstrip(".")
