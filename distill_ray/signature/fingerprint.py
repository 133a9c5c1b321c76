"""The fingerprint of users' code: the normalised source of a class and of all user code it reaches by name.

Comments, docstrings, blank lines and indentation do not count. What installed distributions hold counts by
name only. Nothing depends on the Python version, on where in its file a class stands, or on ``__main__``.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import inspect
import io
import linecache
import re
import sys
import sysconfig
import textwrap
import tokenize
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_ray.errors import SignatureError
from distill_ray.signature.encode import encode

BLIND = ("getattr", "setattr", "eval", "exec", "open", "environ", "getenv", "__import__", "import_module")


@dataclass(frozen=True)
class Fingerprint:
    """What a piece of code amounts to.

    Attributes:
        digest: SHA-256 of all pieces, in hex.
        pieces: ``(name, normalised source or encoded value)``, sorted.
        blind_spots: what the fingerprint cannot see, in sentences.
    """

    digest: str
    pieces: tuple[tuple[str, str], ...]
    blind_spots: tuple[str, ...] = ()


def is_user_code(module_name: str) -> bool:
    """Whether a module is the user's own: no installed distribution, no standard library, not this package."""
    root = module_name.partition(".")[0]
    if root == "__main__":
        return True
    if root in sys.stdlib_module_names or root == "distill_ray":
        return False
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return module is not None and not hasattr(module, "__path__") and root not in sys.builtin_module_names
    path = Path(file).resolve()
    return not any(part in ("site-packages", "dist-packages") for part in path.parts) and not any(
        path.is_relative_to(folder) for folder in _installed_folders()
    )


@functools.lru_cache(maxsize=1)
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def fingerprint(obj: Any) -> Fingerprint:
    """Fingerprint a class or function.

    Raises:
        SignatureError: the source of a piece cannot be found.
    """
    walk = _Walk()
    walk.reach(obj, "")
    pieces = tuple(sorted(walk.pieces.items()))
    state = hashlib.sha256()
    for name, text in pieces:
        for each in (name, text):
            data = each.encode("utf-8", "surrogatepass")
            state.update(len(data).to_bytes(8, "big") + data)
    return Fingerprint(state.hexdigest(), pieces, tuple(sorted(set(walk.blind_spots))))


@dataclass
class _Walk:
    pieces: dict[str, str] = field(default_factory=dict)
    blind_spots: list[str] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)
    _alive: list[Any] = field(default_factory=list)

    def reach(self, value: Any, name: str) -> None:
        """Take in whatever a name stands for."""
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property):
            for accessor in (value.fget, value.fset, value.fdel):
                if accessor is not None:
                    self.reach(accessor, name)
            return
        if isinstance(value, functools.partial):
            self.reach(value.func, name)
            self._constant([list(value.args), dict(value.keywords)], f"{name}()")
            return
        if isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.ModuleType):
            return  # what is used of it is reached by `module.attr`
        elif isinstance(value, types.MethodType):
            self._function(value.__func__)
        elif not callable(value) or is_user_code(type(value).__module__):
            self._constant(value, name)

    def _new(self, value: Any) -> bool:
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        self._alive.append(value)
        return True

    def _class(self, cls: type) -> None:
        if not is_user_code(cls.__module__):
            self.pieces.setdefault(f"installed {cls.__module__}.{cls.__qualname__}", "")
            return
        if not self._new(cls):
            return
        source = _class_source(cls)
        self._piece(cls.__qualname__, source)
        for base in cls.__bases__:
            if base is not object:
                own = base.__dict__.get("version")
                if isinstance(own, str) and is_user_code(base.__module__):
                    self.pieces[f"version of {base.__qualname__}"] = own
                else:
                    self._class(base)
        module = sys.modules.get(cls.__module__)
        self._names(source, vars(module) if module else {})
        for member in list(vars(cls).values()):
            function = inspect.unwrap(member) if callable(member) else member
            function = getattr(function, "__func__", getattr(function, "fget", function))
            if isinstance(function, types.FunctionType) and is_user_code(function.__module__ or ""):
                assigned = function.__qualname__ != f"{cls.__qualname__}.{function.__name__}"
                if assigned:
                    self._function(function)
                else:
                    self._closure(function)

    def _function(self, function: types.FunctionType) -> None:
        if not is_user_code(function.__module__ or ""):
            self.pieces.setdefault(f"installed {function.__module__}.{function.__qualname__}", "")
            return
        if not self._new(function):
            return
        source = _source(function, f"function '{function.__qualname__}'")
        self._piece(function.__qualname__, source)
        self._names(source, function.__globals__)
        self._closure(function)
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for number, default in enumerate(defaults):
            self.reach(default, f"{function.__qualname__} default {number}")
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.reach(wrapped, function.__qualname__)

    def _closure(self, function: types.FunctionType) -> None:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name == "__class__":
                continue
            try:
                self.reach(cell.cell_contents, f"{function.__qualname__} captured {name}")
            except ValueError:
                self.blind_spots.append(f"{function.__qualname__} captures '{name}' before it has a value.")

    def _piece(self, name: str, source: str) -> None:
        name = name.rpartition("<locals>.")[2]
        text = normalised(source)
        known = self.pieces.get(name)
        self.pieces[
            name if known in (None, text) else f"{name} {hashlib.sha256(text.encode()).hexdigest()[:8]}"
        ] = text
        for line in text.splitlines():
            for word in BLIND:
                if re.search(rf"\b{word}\b", line):
                    self.blind_spots.append(f"{name} uses `{word}`: {line.strip()[:100]}")

    def _names(self, source: str, scope: dict[str, Any]) -> None:
        """Reach what the names in the source stand for, ``a.b.c`` through modules."""
        for node in ast.walk(ast.parse(textwrap.dedent(_parsable(source)))):
            if isinstance(node, ast.Attribute):
                dotted = _dotted(node)
                if dotted:
                    self._dotted(dotted, scope)
            elif isinstance(node, ast.Name) and node.id in scope and not hasattr(builtins, node.id):
                self.reach(scope[node.id], node.id)

    def _dotted(self, names: list[str], scope: dict[str, Any]) -> None:
        value = scope.get(names[0])
        for position, name in enumerate(names[1:], start=1):
            if not isinstance(value, types.ModuleType) or not is_user_code(value.__name__):
                return
            if not hasattr(value, name):
                return
            value = getattr(value, name)
            if not isinstance(value, types.ModuleType):
                self.reach(value, ".".join(names[: position + 1]))

    def _constant(self, value: Any, name: str) -> None:
        if isinstance(value, re.Pattern):
            value = ["pattern", value.pattern, value.flags]
        try:
            self.pieces[f"value {name}"] = hashlib.sha256(encode(value)).hexdigest()
        except SignatureError:
            self._live_object(value, name)

    def _live_object(self, value: Any, name: str) -> None:
        cls = type(value)
        self._class(cls)
        self.pieces[f"object {name}"] = f"{cls.__qualname__}"
        self.blind_spots.append(f"'{name}' is a {cls.__qualname__}, whose state does not count.")


def _dotted(node: ast.Attribute) -> list[str] | None:
    names: list[str] = []
    current: ast.expr = node
    while isinstance(current, ast.Attribute):
        names.append(current.attr)
        current = current.value
    return [current.id, *reversed(names)] if isinstance(current, ast.Name) else None


def _parsable(source: str) -> str:
    """A lambda's source line may be cut out of a call: keep the lambda."""
    text = textwrap.dedent(source)
    try:
        ast.parse(text)
    except SyntaxError:
        start = text.find("lambda")
        for end in range(len(text), start, -1):
            try:
                ast.parse(text[start:end].strip())
            except (SyntaxError, ValueError):
                continue
            return text[start:end].strip()
    return text


def _source(function: types.FunctionType, what: str) -> str:
    try:
        return inspect.getsource(function.__code__)
    except (OSError, TypeError) as error:
        raise _no_source(what) from error


def _class_source(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        found = _class_source_by_method(cls)
        if found is None:
            raise _no_source(f"class '{cls.__qualname__}'") from None
        return found


def _class_source_by_method(cls: type) -> str | None:
    """In notebooks a class has no file, but the lines of its methods are known."""
    for member in vars(cls).values():
        function = getattr(member, "__func__", getattr(member, "fget", member))
        code = getattr(function, "__code__", None)
        lines = linecache.getlines(code.co_filename) if code else []
        if not lines:
            continue
        text = "".join(lines)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                return ast.get_source_segment(text, node, padded=True)
    return None


def _no_source(what: str) -> SignatureError:
    return SignatureError(
        f"the source of {what} cannot be found, so changes to it could not be noticed. Define it in a "
        'file, or set `version = "1"` on the class and change it whenever the code changes.'
    )


def normalised(source: str) -> str:
    """The source without comments, docstrings, blank lines and common indentation."""
    text = textwrap.dedent(source)
    drop = _docstring_lines(text)
    lines = text.splitlines()
    for row, column in _comments(text):
        lines[row - 1] = lines[row - 1][:column]
    for first, last in drop:
        for number in range(first - 1, last):
            lines[number] = ""
    inside = _inside_strings(text)
    kept = [
        line if number in inside else line.rstrip()
        for number, line in enumerate(lines, start=1)
        if line.strip() or number in inside
    ]
    return "\n".join(kept)


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    try:
        return list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return []


def _comments(text: str) -> list[tuple[int, int]]:
    return [token.start for token in _tokens(text) if token.type == tokenize.COMMENT]


def _inside_strings(text: str) -> set[int]:
    """Numbers of the lines that a string of several lines goes on in."""
    inside: set[int] = set()
    try:
        tree = ast.parse(_parsable(text))
    except SyntaxError:
        return inside
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant | ast.JoinedStr)
            and node.end_lineno
            and node.end_lineno > node.lineno
        ):
            inside.update(range(node.lineno, node.end_lineno))
            inside.update(range(node.lineno + 1, node.end_lineno + 1))
    for first, last in _docstring_lines(text):
        inside.difference_update(range(first, last + 1))
    return inside


def _docstring_lines(text: str) -> list[tuple[int, int]]:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        if docstring and isinstance(first.value.value, str) and first.lineno > node.lineno:  # type: ignore[attr-defined]
            found.append((first.lineno, first.end_lineno or first.lineno))
    return found
