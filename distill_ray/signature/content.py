"""What values that hold other values hold: partials, methods, wrappers, typing's aliases, dataclasses.

What is in them goes on to the walk that asked, which knows what code and models amount to.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import types
import typing
from collections.abc import Container
from enum import Enum
from typing import Any

from distill_ray.signature.qualified_name import own_name, qualified_name
from distill_ray.signature.stand_in import Tagged, UnencodableError, encode_value, is_secret, stand_in
from distill_ray.signature.user_code import is_user_class

SECRET = Tagged("secret", None)
"""What stands for every secret."""

_WITHOUT_CONTENT = (logging.Logger, type(threading.Lock()), type(threading.RLock()), threading.local)


def content_of(value: Any) -> Tagged | None:
    """Return the value's kind and what it holds, not yet encodable; None for an object of a user's class.

    Raises:
        UnencodableError: nothing is known of its type, which is no user's.
    """
    if is_secret(value):
        return SECRET
    if isinstance(value, _WITHOUT_CONTENT):
        return Tagged("installed", qualified_name(type(value)))
    if isinstance(value, Enum):
        return Tagged("enum", [type(value), value.value])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = _fields(value)
        return Tagged("object", {"class": type(value), **fields, **_beside(value, fields)})
    return _content_of_callable(value) or _content_of_alias(value) or _wrapper(value) or _registered(value)


def _registered(value: Any) -> Tagged | None:
    """What stands for a value of a registered type, with its class where that is a user's."""
    cls = type(value)
    try:
        known = stand_in(value)
    except UnencodableError:
        if is_user_class(cls):
            return None
        raise
    if not is_user_class(cls):
        return known
    if any(is_user_class(base) for base in cls.__mro__ if base in encode_value.registry):
        return Tagged(known.tag, [cls, known.value])  # users have said what of it counts
    libraries = {name for base in cls.__mro__ if not is_user_class(base) for name in _slots(base)}
    beside = _beside(value, libraries)  # of a subclass of str, say
    return Tagged(known.tag, [cls, known.value, beside] if beside else [cls, known.value])


def state(value: Any) -> dict[str, Any]:
    """Return the attributes of an object of a user's class, but for what follows from the others."""
    classes = type(value).__mro__
    slots = [name for cls in classes for name in _slots(cls)]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    cached = {name for cls in classes for name, each in vars(cls).items() if _is_cached(each)}
    others = {name: item for name, item in getattr(value, "__dict__", {}).items() if name not in cached}
    return {**found, **others}


def _is_cached(member: object) -> bool:
    return isinstance(member, functools.cached_property)


def _slots(cls: type) -> list[str]:
    slots = cls.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [_mangled(name, cls) for name in names if name not in ("__dict__", "__weakref__")]


def _mangled(name: str, cls: type) -> str:
    """The name under which a class's attribute is found from outside."""
    is_private = name.startswith("__") and not name.endswith("__")
    return f"_{cls.__name__.lstrip('_')}{name}" if is_private else name


def _fields(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _beside(value: Any, known: Container[str]) -> dict[str, Any]:
    """What users put into an object beside what makes its kind up."""
    if not is_user_class(type(value)):
        return {}
    return {name: item for name, item in state(value).items() if name not in known}


def _wrapper(value: Any) -> Tagged | None:
    """A callable of a library that says what it wraps, as ``functools.lru_cache`` makes."""
    wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
    if wrapped is None or isinstance(value, type | types.FunctionType) or is_user_class(type(value)):
        return None
    return Tagged("wrapper", [qualified_name(type(value)), wrapped])


@functools.singledispatch
def _content_of_callable(_value: Any) -> Tagged | None:
    return None


@_content_of_callable.register(functools.partial)
@_content_of_callable.register(functools.partialmethod)
def _(value: Any) -> Tagged | None:
    return Tagged("partial", [value.func, list(value.args), dict(value.keywords)])


@_content_of_callable.register
def _(value: types.MethodType) -> Tagged | None:
    return Tagged("method", [value.__func__, value.__self__])


@_content_of_callable.register
def _(value: property) -> Tagged | None:
    return Tagged("property", [value.fget, value.fset, value.fdel])


@_content_of_callable.register(staticmethod)
@_content_of_callable.register(classmethod)
def _(value: Any) -> Tagged | None:
    return Tagged(type(value).__name__, value.__func__)


@_content_of_callable.register(functools.cached_property)
def _(value: Any) -> Tagged | None:
    return Tagged("cached_property", value.func)


def _builtin(value: Any) -> Tagged | None:
    bound = getattr(value, "__self__", None)
    if bound is not None and not isinstance(bound, types.ModuleType | type):
        return Tagged("method", [own_name(value), bound])
    return Tagged("installed", _builtin_name(value))


for _kind in (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
):
    _content_of_callable.register(_kind, _builtin)


def _builtin_name(value: Any) -> str:
    bound = getattr(value, "__self__", None)
    owner = bound if isinstance(bound, type) else getattr(value, "__objclass__", None)
    return f"{qualified_name(owner)}.{own_name(value).rpartition('.')[2]}" if owner else qualified_name(value)


def _content_of_alias(value: Any) -> Tagged | None:
    origin = typing.get_origin(value)
    if origin is not None:
        kind = typing.Union if origin is types.UnionType else origin
        return Tagged("alias", [kind, list(typing.get_args(value))])
    if isinstance(value, typing.ForwardRef):
        return Tagged("name", value.__forward_arg__)
    if isinstance(value, typing.TypeVar):
        return Tagged("type_variable", [value.__name__, value.__bound__, list(value.__constraints__)])
    if isinstance(value, typing.NewType):
        return Tagged("new_type", [value.__name__, value.__supertype__])
    if type(value).__module__ in ("typing", "typing_extensions"):
        return Tagged("installed", [qualified_name(value), None])  # as a class: Any is one since 3.11
    return None
