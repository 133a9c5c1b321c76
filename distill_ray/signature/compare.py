"""What differs between two described trees: the fields that changed, by path.

Works on what `distill_ray.signature.encode.describe` gives, also after a way through JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MISSING = "<missing>"
"""Stands for a field that one of the trees does not have."""


@dataclass(frozen=True)
class Change:
    """One field that differs.

    Attributes:
        path: where it is, such as ``llm.generation_kwargs.stop[2]``.
        old: its described value before, or `MISSING`.
        new: its described value now, or `MISSING`.
    """

    path: str
    old: Any
    new: Any


def changes(old: Any, new: Any, path: str = "") -> tuple[Change, ...]:
    """The smallest parts that differ, in the order of their paths. 1, 1.0 and True are different.

    Example:
        >>> changes({"a": 1, "b": 2}, {"a": 1, "b": 3})
        (Change(path='b', old=2, new=3),)
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        parts = [_at(old, new, key, f"{path}.{key}".lstrip(".")) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [changes(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True))]
    elif type(old) is type(new) and repr(old) == repr(new):
        parts = []
    else:
        parts = [(Change(path, old, new),)]
    return tuple(change for part in parts for change in part)


def _at(old: dict[str, Any], new: dict[str, Any], key: str, path: str) -> tuple[Change, ...]:
    if key in old and key in new:
        return changes(old[key], new[key], path)
    return (Change(path, old.get(key, MISSING), new.get(key, MISSING)),)
