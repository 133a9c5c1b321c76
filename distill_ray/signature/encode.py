"""Canonical encoding of values: one byte string per value, the same in every process, and digests of it.

Every value is framed: a tag of one byte, the length of the content in eight, the content. Containers hold the
frames of what is in them. So no two different values share an encoding, and a list of two strings is never
one string with a comma in it. Tuples are lists (a pipeline saved as YAML comes back with lists), dicts are
sorted by their encoded keys, sets by their encoded items, floats are their shortest round-trip text. A list
of more than `LONG_LIST` items stands as its length and the SHA-256 of its items' frames, so that a data set
is gone through once and neither held in memory twice nor written out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from distill_ray.errors import SignatureError
from distill_ray.signature.stand_in import Tagged, UnencodableError, stand_in

FORMAT = 1
"""Version of the encoding, part of every digest: a change of the encoding changes every signature."""

LONG_LIST = 100
"""Items that a list may have and still be described item by item."""

LONG_TEXT = 16_384
"""Characters that a text, or the description of a container, may have and still be written out."""

StandIn: TypeAlias = Callable[[object], Tagged]

_LONG_BYTES = 1024
_INT64 = 2**63
_MANY_SHAPES = 10_000


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
    return Encoding().encode(value, path=path)


def digest(value: object, *, path: str = "") -> str:
    """The SHA-256 of a value's encoding, as 64 hexadecimal digits.

    Raises:
        SignatureError: as `encode` does.
    """
    return Encoding().digest(value, path=path)


def describe(value: object, *, path: str = "") -> Any:
    """The tree that is encoded, as something JSON can hold, for people and for comparing field by field.

    What JSON cannot hold stands as ``{"$<tag>": ...}``; what is long is named by its length and its digest.

    Raises:
        SignatureError: as `encode` does.

    Example:
        >>> describe({"stop": ("a", b"b"), "top_p": float("inf")})
        {'stop': ['a', {'$bytes': 'Yg=='}], 'top_p': {'$float': 'inf'}}
    """
    return Encoding().describe(value, path=path)


class Encoding:
    """One pass over values, with a stand-in for each whose type the encoding does not know.

    Long lists are digested once, so values must not change while an encoding is in use.

    Args:
        stand_in: gives the stand-in of a value, or raises `UnencodableError`.
    """

    def __init__(self, stand_in: StandIn = stand_in) -> None:
        self._stand_in = stand_in
        self._long: dict[int, tuple[object, bytes]] = {}
        self._shapes: dict[tuple[str, ...], list[tuple[str, bytes]]] = {}
        self._encoders: dict[type, Callable[[Any], bytes]] = {
            **_SCALARS,
            list: self._encode_list,
            tuple: self._encode_list,
            **dict.fromkeys((set, frozenset), self._encode_set),
            **dict.fromkeys((dict, OrderedDict, Counter), self._encode_pairs),
            defaultdict: self._encode_defaults,
        }
        self._describers: dict[type, Callable[[Any], Any]] = {
            **_DESCRIBED_SCALARS,
            **dict.fromkeys((list, tuple), self._describe_list),
            **dict.fromkeys((set, frozenset), self._describe_set),
            **dict.fromkeys((dict, OrderedDict, Counter), self._describe_dict),
            defaultdict: self._describe_defaults,
        }

    def encode(self, value: object, *, path: str = "") -> bytes:
        """Encode as the function `encode` does."""
        encoded: bytes = _guarded(self._encode, value, path)
        return encoded

    def digest(self, value: object, *, path: str = "") -> str:
        """Digest as the function `digest` does."""
        preimage = b"distill_ray" + FORMAT.to_bytes(4, "big") + self.encode(value, path=path)
        return hashlib.sha256(preimage).hexdigest()

    def describe(self, value: object, *, path: str = "") -> Any:
        """Describe as the function `describe` does."""
        return _guarded(self._describe, value, path)

    def _encode(self, value: object) -> bytes:
        encoder = self._encoders.get(type(value))
        if encoder is not None:
            return encoder(value)
        tag, content = self._tagged(value)
        return _frame(b"T", _frame(b"s", tag.encode()) + self._encode(content))

    def _tagged(self, value: object) -> Tagged:
        try:
            return value if isinstance(value, Tagged) else self._stand_in(value)
        except UnencodableError as error:
            raise _RefusedError(str(error)) from None

    def _encode_list(self, value: list[object] | tuple[object, ...]) -> bytes:
        if len(value) <= LONG_LIST:
            return _frame(b"l", b"".join(_each(value, self._encode)))
        return _frame(b"L", len(value).to_bytes(8, "big") + self._long_digest(value))

    def _long_digest(self, value: list[object] | tuple[object, ...]) -> bytes:
        known = self._long.get(id(value))
        if known is None:
            state = hashlib.sha256()
            for start in range(0, len(value), LONG_LIST):
                state.update(b"".join(_each(value[start : start + LONG_LIST], self._encode, start)))
            known = self._long[id(value)] = (value, state.digest())
        return known[1]

    def _encode_set(self, value: Iterable[object]) -> bytes:
        return _frame(b"e", b"".join(sorted(_each(value, self._encode))))

    def _encode_pairs(self, value: Mapping[Any, object]) -> bytes:
        shape = tuple(value)
        if not set(map(type, shape)) <= _TEXT:
            pairs = self._each_pair(value, self._encode)
            return _frame(b"d", b"".join([key + item for key, _, item in pairs]))
        keys = self._shapes.get(shape)
        if keys is None:
            if len(self._shapes) > _MANY_SHAPES:
                self._shapes.clear()
            keys = self._shapes[shape] = sorted(
                ((key, _encode_str(key)) for key in shape), key=lambda entry: entry[1]
            )
        parts = []
        for key, frame in keys:
            parts.append(frame)
            try:
                parts.append(self._encode(value[key]))
            except _RefusedError as refused:
                refused.path.append(step_into(key))
                raise
        return _frame(b"d", b"".join(parts))

    def _encode_defaults(self, value: defaultdict[Any, Any]) -> bytes:
        return self._encode(_with_factory(value))

    def _each_pair(
        self, pairs: Mapping[Any, object], walk: Callable[[object], Any]
    ) -> list[tuple[bytes, Any, Any]]:
        """Walk a dict in the order of its encoded keys; a refused value learns its key."""
        keys = list(pairs)
        walked = []
        try:
            for key in keys:
                walked.append((self._encode(key), key, walk(pairs[key])))  # noqa: PERF401 - see `_each`
        except _RefusedError as refused:
            refused.path.append(step_into(keys[len(walked)]))
            raise
        return sorted(walked, key=lambda entry: entry[0])

    def _describe(self, value: object) -> Any:
        describer = self._describers.get(type(value))
        if describer is not None:
            return describer(value)
        tag, content = self._tagged(value)
        if isinstance(content, dict):  # the fields of a model: all are named, however long they are together
            return {f"${tag}": self._describe_pairs(content)}
        return {f"${tag}": self._describe(content)}

    def _describe_list(self, value: list[object] | tuple[object, ...]) -> Any:
        if len(value) > LONG_LIST:
            return {"$long_list": [len(value), self._long_digest(value).hex()]}
        return self._short(value, _each(value, self._describe))

    def _describe_set(self, value: Iterable[object]) -> Any:
        items = sorted(value, key=self._encode)
        return self._short(value, {"$set": [self._describe(item) for item in items]})

    def _describe_dict(self, value: Mapping[Any, object]) -> Any:
        return self._short(value, self._describe_pairs(value))

    def _describe_defaults(self, value: defaultdict[Any, Any]) -> Any:
        return self._describe(_with_factory(value))

    def _describe_pairs(self, value: Mapping[Any, object]) -> Any:
        pairs = self._each_pair(value, self._describe)
        if all(type(key) is str and not key.startswith("$") and _is_text(key) for _, key, _ in pairs):
            return {key: item for _, key, item in pairs}
        return {"$dict": [[self._describe(key), item] for _, key, item in pairs]}

    def _short(self, value: Any, described: Any) -> Any:
        if len(json.dumps(described)) <= LONG_TEXT:
            return described
        encoded = self._encode(value)
        return {f"$long_{type(value).__name__}": [len(value), hashlib.sha256(encoded).hexdigest()]}


def _with_factory(value: defaultdict[Any, Any]) -> dict[Any, Any] | Tagged:
    """What it holds, and what it gives for other keys."""
    held = dict(value)
    return held if value.default_factory is None else Tagged("defaultdict", [value.default_factory, held])


def step_into(key: object) -> str:
    """How a path goes on into a dict's item: ``.name``, or ``['any other key']``."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def _guarded(walk: Callable[[object], Any], value: object, path: str) -> Any:
    try:
        return walk(value)
    except _RefusedError as refused:
        where = "".join([path, *reversed(refused.path)]).lstrip(".") or "the value"
        raise SignatureError(f"{where}: {refused.reason}") from None
    except RecursionError:
        raise SignatureError(f"{path or 'the value'} contains itself, or is nested too deeply.") from None


def _each(items: Iterable[object], walk: Callable[[object], Any], start: int = 0) -> list[Any]:
    """Walk the items of a list; a refused one learns its index."""
    walked: list[Any] = []
    try:
        for item in items:
            walked.append(walk(item))  # noqa: PERF401 - its length is the index of a refused item
    except _RefusedError as refused:
        refused.path.append(f"[{start + len(walked)}]")
        raise
    return walked


def _frame(tag: bytes, content: bytes) -> bytes:
    return tag + len(content).to_bytes(8, "big") + content


def _encode_str(value: str) -> bytes:
    content = value.encode("utf-8", "surrogatepass")
    return b"s" + len(content).to_bytes(8, "big") + content


def _encode_int(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"i" + size.to_bytes(8, "big") + value.to_bytes(size, "big", signed=True)


def _encode_float(value: float) -> bytes:
    content = _float_text(value).encode()
    return b"f" + len(content).to_bytes(8, "big") + content


def _float_text(value: float) -> str:
    return "nan" if value != value else float.__repr__(value)  # noqa: PLR0124


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _describe_int(value: int) -> Any:
    return value if -_INT64 <= value < _INT64 else {"$int": hex(value)}


def _describe_float(value: float) -> Any:
    return value if value - value == 0 else {"$float": _float_text(value)}


def _describe_str(value: str) -> Any:
    if len(value) > LONG_TEXT:
        return {"$long_str": [len(value), hashlib.sha256(_encode_str(value)).hexdigest()]}
    return value if _is_text(value) else {"$str": value.encode("unicode_escape").decode()}


def _describe_bytes(value: bytes) -> Any:
    if len(value) > _LONG_BYTES:
        return {"$long_bytes": [len(value), hashlib.sha256(value).hexdigest()]}
    return {"$bytes": base64.b64encode(value).decode()}


_TEXT = {str}

_SCALARS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: _frame(b"n", b""),
    bool: lambda value: _frame(b"t", b"\x01" if value else b"\x00"),
    int: _encode_int,
    float: _encode_float,
    str: _encode_str,
    bytes: lambda value: _frame(b"b", value),
}

_DESCRIBED_SCALARS: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _describe_int,
    float: _describe_float,
    str: _describe_str,
    bytes: _describe_bytes,
}
