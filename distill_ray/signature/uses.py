"""What a node uses: names in its source, what it captured, defaults, bases, members and attributes."""

from __future__ import annotations

import builtins
import functools
import importlib
import inspect
import linecache
import os
from collections.abc import Container, Mapping
from enum import Enum, EnumMeta
from pathlib import Path, PurePath
from types import FunctionType, ModuleType
from typing import Any, ClassVar

from distill_ray.errors import SignatureError
from distill_ray.signature import source
from distill_ray.signature.content import state
from distill_ray.signature.encode import digest
from distill_ray.signature.names import Names, names_in
from distill_ray.signature.normal_form import normal_form
from distill_ray.signature.qualified_name import qualified_name
from distill_ray.signature.references import Node, References, Statements, captured
from distill_ray.signature.stand_in import Tagged
from distill_ray.signature.user_code import (
    is_user_class,
    is_user_function,
    is_user_import,
    is_user_module,
)

_PYDANTICS = frozenset({"model_config", "model_fields", "model_computed_fields", "model_post_init"})
"""Members that pydantic puts into a class; what of them is the user's is in the source."""

_KNOWN_BY_NAME = (type, FunctionType, ModuleType, type(ClassVar))
"""Kinds of values that say themselves where they are from."""

_OF_THE_MODULE = frozenset({"__name__", "__file__", "__package__", "__spec__", "__loader__", "__builtins__"})
"""Globals that say how and from where a module was imported: they differ between machines."""

_MADE_BY_CALLS = frozenset({"builtins", "enum", "typing", "typing_extensions"})
"""Where the metaclasses are whose classes are wholly known by their members."""


def work_out(node: Node, references: References) -> None:
    """Fill in a node's text and uses, numbering the nodes that they lead to.

    Raises:
        SignatureError: source cannot be found, or a value without source has no encoding.
    """
    unfolding = _Unfolding(node, references)
    if isinstance(node.of, type):
        unfolding.of_class(node.of)
    elif isinstance(node.of, FunctionType):
        unfolding.of_function(node.of)
    elif isinstance(node.of, Statements):
        node.text = normal_form(node.of.text)
        unfolding.names(node.of.text, node.of.scope)
    else:
        unfolding.of_object(node.of)


def step_function_of(cls: type) -> FunctionType | None:
    """The user's function of a class that ``@step`` made."""
    function = cls.__dict__.get("function")
    inner = function.__func__ if isinstance(function, staticmethod) else None
    return inner if isinstance(inner, FunctionType) else None


class _Unfolding:
    def __init__(self, node: Node, references: References) -> None:
        self._node = node
        self._references = references

    def of_function(self, function: FunctionType) -> None:
        piece = source.function_source(function)
        self._node.text = normal_form(piece.text)
        own = frozenset(function.__code__.co_freevars)
        self.names(piece.text, function.__globals__, own=own, nested=_is_nested(function))
        self._held_beside_source(function)

    def of_class(self, cls: type) -> None:
        for number, base in enumerate(base for base in cls.__bases__ if base is not object):
            self._use(f"base {number}", base)
        if is_user_class(type(cls)):
            self._use("metaclass", type(cls))
        function = step_function_of(cls)
        if function is not None:
            self._use("function", function)
            return
        functions = [f for member in vars(cls).values() for f in _users_functions(member)]
        for each in functions:
            source.check_unchanged(each, f"'{each.__qualname__}'")
        scope = source.class_scope(cls, functions)
        pieces = source.class_source(cls, functions, scope)
        if not pieces:
            _check_known_by_members(cls, functions)
            self._use("annotations", inspect.get_annotations(cls), sourced=False)
        self._node.text = "\n".join(normal_form(piece.text) for piece in pieces)
        own = frozenset(name for each in functions for name in each.__code__.co_freevars)
        for piece in pieces:
            self.names(piece.text, scope, own=own, nested=_is_nested(cls))
        self._members(cls, pieces)

    def of_object(self, value: object) -> None:
        self._use("class", type(value))
        for name, item in sorted(state(value).items()):
            self._use(name, item, sourced=self._node.sourced)

    def names(
        self, text: str, scope: Mapping[str, Any], *, own: frozenset[str] = frozenset(), nested: bool = False
    ) -> None:
        """Reach what the names in a source text stand for.

        Args:
            text: the source.
            scope: the globals of its module.
            own: names that are no globals: what a function captured.
            nested: whether the source stands in a function, whose variables it may name.
        """
        names = names_in(text)
        modules = self._imported_modules(names, scope)
        everything = {**scope, **modules}
        for chain in sorted(names.chains):
            if chain[0] in names.used - own or chain[0] in modules:
                self._chain(chain, everything)
        for name in sorted({*(names.used - own), *names.assigned, *modules}):
            self._name(name, names, everything, nested=nested)
        for word in sorted(names.unseen - set(scope)):
            self._blind(f"uses '{word}', and what it gets by that does not count")

    def _name(self, name: str, names: Names, scope: Mapping[str, Any], *, nested: bool) -> None:
        if name in _OF_THE_MODULE:
            return
        if name in names.assigned:
            self._blind(f"sets '{name}' while it runs, whose value does not count")
        elif name in scope:
            if not isinstance(scope[name], ModuleType) or name in names.bare:
                self._global(name, name, scope)
        elif not hasattr(builtins, name) and not nested:
            self._blind(f"uses '{name}', which has no value yet")

    def _chain(self, chain: tuple[str, ...], scope: Mapping[str, Any]) -> None:
        """Follow ``a.b.c`` through the user's modules to what is not a module."""
        value = scope.get(chain[0])
        for position, name in enumerate(chain[1:], start=2):
            if not isinstance(value, ModuleType) or not is_user_module(value.__name__):
                return
            label = ".".join(chain[:position])
            if not hasattr(value, name):
                self._blind(f"uses '{label}', which has no value yet")
                return
            if not isinstance(getattr(value, name), ModuleType):
                self._global(label, name, {name: getattr(value, name), **vars(value)})
            value = getattr(value, name)

    def _global(self, label: str, name: str, scope: Mapping[str, Any]) -> None:
        """Reach a name of a module, where it was made: a value does not say where it is from."""
        value = scope[name]
        if isinstance(value, _KNOWN_BY_NAME):
            self._use(label, value)
            return
        statements = source.statements_binding(name, scope)
        while not statements and (origin := source.imported_from(name, scope)) is not None:
            module, name = origin
            if not is_user_module(module):
                self._node.uses[label] = digest(["installed", module, name])
                return
            scope = source.module_scope(module)
            statements = source.statements_binding(name, scope)
        is_known = self._use(label, _from_its_module(value, scope, statements), sourced=bool(statements))
        if not is_known:
            statements = source.statements_binding(name, scope, changing=True)
        if statements and label not in self._node.values:
            self._node.uses[f"{label} ="] = self._references.statements(name, scope, statements)

    def _use(self, label: str, value: object, *, sourced: bool = True) -> bool:
        """Note what a use amounts to; say whether its content is known."""
        try:
            found = self._references.reference(value, sourced=sourced)
        except SignatureError as error:
            if not sourced:
                raise SignatureError(
                    f"'{self._node.name}' uses '{label}', whose content is known by no source: {error} "
                    "Or make it a parameter of the step, or define it at the top level of its module."
                ) from error
            kind = qualified_name(type(value))
            self._node.uses[label] = digest(["opaque", kind])
            self._blind(f"uses '{label}', a {kind}, which counts by the source that makes it alone")
            return False
        self._node.uses[label] = found.digest
        if found.is_plain:
            self._node.values[label] = found.digest
        return True

    def _blind(self, sentence: str) -> None:
        self._references.blind_spots.add(f"'{self._node.name}' {sentence}.")

    def _held_beside_source(self, function: FunctionType, prefix: str = "") -> None:
        """What a function holds beside its source: what it captured, its attributes, and its defaults."""
        for name, value in captured(function):
            self._use(f"{prefix}captured {name}", value, sourced=False)
        for name, value in sorted(vars(function).items()):
            if not name.startswith("__"):  # those are for other tools, and not the same in all Pythons
                self._use(f"{prefix}attribute {name}", value)
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for number, default in enumerate(defaults):
            self._use(f"{prefix}default {number}", default, sourced=not _is_nested(function))

    def _members(self, cls: type, pieces: tuple[source.Piece, ...]) -> None:
        """What came into a class otherwise than by its source, and its attributes' values as they are now.

        What is not the user's is left out, as it differs between versions of Python and pydantic.
        """
        if isinstance(cls, EnumMeta):
            members: Mapping[str, Enum] = cls.__members__
            self._use("members", {name: each.value for name, each in members.items()})
        written = {name for piece in pieces for name in names_in(piece.text).members} if pieces else vars(cls)
        for name, member in sorted(vars(cls).items()):
            functions = _users_functions(member)
            own = [f for f in functions if any(piece.holds(f.__code__) for piece in pieces)]
            for function in own:
                self._held_beside_source(function, f"{name} ")
            is_value = not functions and _is_attribute(cls, name, member, written)
            is_one_of_several = any(piece.text.count(f"def {name}(") > 1 for piece in pieces)
            if is_value or (functions and (not own or is_one_of_several)):
                self._use(f"attribute {name}", member)

    def _imported_modules(self, names: Names, scope: Mapping[str, Any]) -> dict[str, ModuleType]:
        """The user's modules that functions import; what they import from them is reached at once."""
        modules: dict[str, ModuleType] = {}
        for each in names.imports:
            name = source.absolute_module(each.module, each.level, scope)
            is_users = is_user_import(name)
            if is_users is None:
                self._blind(f"imports '{name}', which is not on this machine")
            elif is_users:
                module = self._import(name)
                if each.attribute is not None and hasattr(module, each.attribute):
                    self._global(each.name, each.attribute, {**vars(module)})
                else:
                    modules[each.name] = (
                        self._import(f"{name}.{each.attribute}") if each.attribute else module
                    )
        return modules

    def _import(self, module: str) -> ModuleType:
        try:
            return importlib.import_module(module)
        except ImportError as error:
            raise SignatureError(
                f"'{self._node.name}' imports '{module}' while it runs; to see its code it was imported "
                f"here, which failed: {error}"
            ) from error


def _from_its_module(value: Any, scope: Mapping[str, Any], statements: str) -> Any:
    """A path that was made from ``__file__``, as it looks from there: it differs between machines."""
    file = scope.get("__file__")
    if file is None or not isinstance(value, str | PurePath) or not PurePath(value).is_absolute():
        return value
    folder, path = Path(file).resolve().parent, Path(value).resolve()
    if "__file__" in statements or path.is_relative_to(folder):
        return Tagged("beside the module", Path(os.path.relpath(path, folder)).as_posix())
    return value


def _is_nested(code: type | FunctionType) -> bool:
    return "<locals>" in code.__qualname__


def _users_functions(member: Any) -> list[FunctionType]:
    return [each for each in _functions_of(member) if is_user_function(each) and not _is_made(each)]


def _functions_of(member: Any) -> list[FunctionType]:
    """The functions that a member of a class is made from."""
    if isinstance(member, FunctionType):
        return [member]
    inner: list[Any] = []
    if isinstance(member, property):
        inner = [member.fget, member.fset, member.fdel]
    elif isinstance(member, staticmethod | classmethod):
        inner = [member.__func__]
    elif isinstance(member, functools.cached_property | functools.partialmethod):
        inner = [member.func]
    elif callable(member) and not isinstance(member, type):
        inner = [getattr(member, "__wrapped__", None)]
    return [function for each in inner for function in _functions_of(each)]


def _is_made(function: FunctionType) -> bool:
    """Whether something such as ``dataclass``, attrs or ``namedtuple`` wrote the function."""
    file = function.__code__.co_filename
    made = file.startswith(("<string>", "<attrs generated"))
    return function.__name__.startswith("__") and (made or not linecache.getlines(file))


def _is_attribute(cls: type, name: str, member: object, written: Container[str]) -> bool:
    """Whether a member without code is the user's value."""
    if name.startswith("__") or name in _PYDANTICS or isinstance(cls, EnumMeta):
        return False
    made = hasattr(type(member), "__get__") and not is_user_class(type(member))
    return not made and (name in written or not name.startswith("_"))


def _check_known_by_members(cls: type, functions: list[FunctionType]) -> None:
    """A class without a ``class`` statement in any source, such as a namedtuple, is what its members are."""
    if any(source.is_own(each, cls) for each in functions) or type(cls).__module__ not in _MADE_BY_CALLS:
        raise source.no_source(f"class '{cls.__qualname__}'")
