"""Canonical encoding of values: one byte string per value, the same in every process, and digests of it.

Every value is framed: a tag of one byte, the length of the content in eight, the content. Containers hold the
frames of what is in them. So no two different values share an encoding, and a list of two strings is never
one string with a comma in it. Tuples are lists (a pipeline saved as YAML comes back with lists), dicts are
sorted by their encoded keys, sets by their encoded items, floats are their shortest round-trip text.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from distill_ray.errors import SignatureError
from distill_ray.signature.stand_in import Tagged, UnencodableError, encode_value, stand_in

__all__ = ["FORMAT", "SignatureError", "Tagged", "describe", "digest", "encode", "encode_value"]

FORMAT = 1
"""Version of the encoding, part of every digest: a change of the encoding changes every signature."""

_LONG = 1024
_INT64 = 2**63


class _RefusedError(Exception):
    """A value without an encoding, and the path to it, innermost part first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def encode(value: object, *, path: str = "") -> bytes:
    """Encode a value; two values share an encoding only if they are the same.

    Args:
        value: what to encode.
        path: what to call the value in an error, such as ``llm.generation_kwargs``.

    Raises:
        SignatureError: something in it has no encoding; names where it is, its type and the remedy.

    Example:
        >>> encode(["a", "b"]) == encode(["a-b"])
        False
    """
    return _guarded(_encode, value, path)


def digest(value: object, *, path: str = "") -> str:
    """The SHA-256 of a value's encoding, as 64 hexadecimal digits.

    Raises:
        SignatureError: as `encode` does.
    """
    preimage = b"distill_ray" + FORMAT.to_bytes(4, "big") + encode(value, path=path)
    return hashlib.sha256(preimage).hexdigest()


def describe(value: object, *, path: str = "") -> Any:
    """The tree that is encoded, as something JSON can hold, for people and for comparing field by field.

    What JSON cannot hold stands as ``{"$<tag>": ...}``; bytes longer than 1 KB are named by their digest.

    Raises:
        SignatureError: as `encode` does.

    Example:
        >>> describe({"stop": ("a", b"b"), "top_p": float("inf")})
        {'stop': ['a', {'$bytes': 'Yg=='}], 'top_p': {'$float': 'inf'}}
    """
    return _guarded(_describe, value, path)


def _guarded(walk: Callable[[object], Any], value: object, path: str) -> Any:
    try:
        return walk(value)
    except _RefusedError as refused:
        where = "".join([path, *reversed(refused.path)]).lstrip(".") or "the value"
        raise SignatureError(f"{where}: {refused.reason}") from None
    except RecursionError:
        raise SignatureError(f"{path or 'the value'} contains itself, or is nested too deeply.") from None


def _encode(value: object) -> bytes:
    writer = _ENCODERS.get(type(value))
    if writer is not None:
        return writer(value)
    tag, content = _stand_in(value)
    return _frame(b"T", _frame(b"s", tag.encode()) + _encode(content))


def _stand_in(value: object) -> Tagged:
    try:
        return stand_in(value)
    except UnencodableError as error:
        raise _RefusedError(str(error)) from None


def _frame(tag: bytes, content: bytes) -> bytes:
    return tag + len(content).to_bytes(8, "big") + content


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _float_text(value: float) -> str:
    return "nan" if value != value else float.__repr__(value)  # noqa: PLR0124


def _each(items: Iterable[object], walk: Callable[[object], Any]) -> list[Any]:
    """Walk the items of a list; a refused one learns its index."""
    walked = []
    for index, item in enumerate(items):
        try:
            walked.append(walk(item))
        except _RefusedError as refused:
            refused.path.append(f"[{index}]")
            raise
    return walked


def _each_pair(pairs: Mapping[Any, object], walk: Callable[[object], Any]) -> list[tuple[bytes, Any, Any]]:
    """Walk a dict in the order of its encoded keys; a refused value learns its key."""
    walked = []
    for key, item in pairs.items():
        try:
            walked.append((_encode(key), key, walk(item)))
        except _RefusedError as refused:
            refused.path.append(f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]")
            raise
    return sorted(walked, key=lambda entry: entry[0])


def _encode_pairs(value: Mapping[Any, object]) -> bytes:
    return _frame(b"d", b"".join(key + item for key, _, item in _each_pair(value, _encode)))


def _encode_set(value: Iterable[object]) -> bytes:
    return _frame(b"e", b"".join(sorted(_each(value, _encode))))


def _encode_list(value: Iterable[object]) -> bytes:
    return _frame(b"l", b"".join(_each(value, _encode)))


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: _frame(b"n", b""),
    bool: lambda value: _frame(b"t", b"\x01" if value else b"\x00"),
    int: lambda value: _frame(b"i", _int_bytes(value)),
    float: lambda value: _frame(b"f", _float_text(value).encode()),
    str: lambda value: _frame(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: _frame(b"b", value),
    list: _encode_list,
    tuple: _encode_list,
    set: _encode_set,
    frozenset: _encode_set,
    dict: _encode_pairs,
    OrderedDict: _encode_pairs,
    defaultdict: _encode_pairs,
    Counter: _encode_pairs,
}


def _describe(value: object) -> Any:
    describer = _DESCRIBERS.get(type(value))
    if describer is not None:
        return describer(value)
    tag, content = _stand_in(value)
    return {f"${tag}": _describe(content)}


def _describe_int(value: int) -> Any:
    return value if -_INT64 <= value < _INT64 else {"$int": hex(value)}


def _describe_float(value: float) -> Any:
    return value if value - value == 0 else {"$float": _float_text(value)}


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _describe_str(value: str) -> Any:
    return value if _is_text(value) else {"$str": value.encode("unicode_escape").decode()}


def _describe_bytes(value: bytes) -> Any:
    if len(value) > _LONG:
        return {"$bytes_sha256": [len(value), hashlib.sha256(value).hexdigest()]}
    return {"$bytes": base64.b64encode(value).decode()}


def _describe_set(value: Iterable[object]) -> Any:
    return {"$set": [_describe(item) for item in sorted(value, key=_encode)]}


def _describe_pairs(value: Mapping[Any, object]) -> Any:
    pairs = _each_pair(value, _describe)
    if all(type(key) is str and not key.startswith("$") and _is_text(key) for _, key, _ in pairs):
        return {key: item for _, key, item in pairs}
    return {"$dict": [[_describe(key), item] for _, key, item in pairs]}


_DESCRIBERS: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _describe_int,
    float: _describe_float,
    str: _describe_str,
    bytes: _describe_bytes,
    list: lambda value: _each(value, _describe),
    tuple: lambda value: _each(value, _describe),
    set: _describe_set,
    frozenset: _describe_set,
    dict: _describe_pairs,
    OrderedDict: _describe_pairs,
    defaultdict: _describe_pairs,
    Counter: _describe_pairs,
}
