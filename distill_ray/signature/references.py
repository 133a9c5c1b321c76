"""What a name in users' code stands for: the number of a node, a value, or something installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, TypeAlias

from distill_ray.signature.content import content_of
from distill_ray.signature.encode import Encoding
from distill_ray.signature.qualified_name import own_name, qualified_name
from distill_ray.signature.stand_in import Tagged
from distill_ray.signature.user_code import is_user_class, is_user_function, is_user_module

Declared: TypeAlias = Callable[[object], Tagged | None]


def nothing_declared(_value: object) -> Tagged | None:
    """Know no value better than its attributes say."""
    return None


@dataclass(frozen=True)
class Statements:
    """The statements at the top level of a module that give a name its value."""

    text: str
    scope: Mapping[str, Any]


@dataclass
class Node:
    """A piece of users' source, or an object of a user's class.

    Attributes:
        name: what to call it.
        of: the class, function, object or statements.
        sourced: whether what the object holds follows from source that counts already.
        text: the normal form of the source.
        uses: digest of what each name in it stands for.
        values: those uses that are plain values.
    """

    name: str
    of: Any
    sourced: bool
    text: str = ""
    uses: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)


class Reference(NamedTuple):
    """What a value amounts to.

    Attributes:
        digest: in which code and users' objects are the numbers of their nodes.
        is_plain: whether it leads to no code, class or object.
    """

    digest: str
    is_plain: bool


class References:
    """Numbers the nodes that values lead to, in the order in which they are found.

    Args:
        declared: gives the stand-in of a value that the caller knows better than its attributes say.
    """

    def __init__(self, declared: Declared) -> None:
        self.nodes: list[Node] = []
        self.blind_spots: set[str] = set()
        self._declared = declared
        self._numbers: dict[Any, int] = {}
        self._sourced = self._is_plain = True

    def reference(self, value: object, *, sourced: bool = True) -> Reference:
        """Digest a value, numbering what code and users' objects it leads to.

        Args:
            value: what a name stands for.
            sourced: whether the value follows from source that counts already.

        Raises:
            SignatureError: it holds something that has no encoding.
        """
        self._sourced, self._is_plain = sourced, True
        found = Encoding(self._stand_in).digest(value)
        return Reference(found, self._is_plain)

    def statements(self, name: str, scope: Mapping[str, Any], text: str) -> str:
        """Digest of the node of the statements that give a name its value."""
        key = (scope.get("__name__"), name, text)
        if key not in self._numbers:
            self._numbers[key] = len(self.nodes)
            self.nodes.append(Node(f"{name} =", Statements(text, scope), sourced=True))
        return Encoding().digest(Tagged("node", self._numbers[key]))

    def _stand_in(self, value: object) -> Tagged:
        known = self._declared(value)
        if known is not None:
            return known
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, ModuleType):
            if is_user_module(value.__name__):
                self.blind_spots.add(f"module '{value.__name__}' is handed around: its code does not count.")
            return Tagged("module", value.__name__)
        found = content_of(value) or self._node(f"object of {type(value).__qualname__}", value)
        self._is_plain &= found.tag != "installed"
        return found

    def _class(self, cls: type) -> Tagged:
        self._is_plain = False
        version = class_version(cls)
        if is_user_class(cls) and version is None:
            return self._node(cls.__qualname__, cls)
        return Tagged("installed", [qualified_name(cls), version])

    def _function(self, function: FunctionType) -> Tagged:
        self._is_plain = False
        if is_user_function(function):
            return self._node(function.__qualname__, function)
        inner = [*vars(function).values(), *(cell for _, cell in captured(function))]
        users = list(_user_functions_in(inner))
        name = own_name(function) if users else qualified_name(function)
        return Tagged("installed", [name, users])

    def _node(self, name: str, of: Any) -> Tagged:
        self._is_plain = False  # an object of a user's class
        number = self._numbers.get(id(of))
        if number is None:
            number = self._numbers[id(of)] = len(self.nodes)
            self.nodes.append(Node(name.rpartition("<locals>.")[2], of, self._sourced))
        return Tagged("node", number)


def class_version(cls: type) -> str | None:
    """The ``version`` that stands for the code of a step or model class.

    A user's class must set it itself, as its code may be other than its base's; an installed one may inherit
    it. In other classes an attribute of that name means what its author likes.
    """
    found = cls.__dict__.get("version") if is_user_class(cls) else getattr(cls, "version", None)
    declares = (base for base in cls.__mro__ if base.__module__.partition(".")[0] == "distill_ray")
    return found if isinstance(found, str) and any("version" in vars(base) for base in declares) else None


def captured(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names and values that a function captured from around it; those without a value yet are left out."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        if name != "__class__":
            yield name, value


def _user_functions_in(values: list[Any]) -> Iterator[FunctionType]:
    """What a library's wrapper wraps; ``functools.singledispatch`` keeps its functions in a dict."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _user_functions_in([item for item in value.values() if isinstance(item, FunctionType)])
        elif isinstance(value, FunctionType) and is_user_function(value):
            yield value
