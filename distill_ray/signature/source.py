"""Where the source of a class or function is, and whether it still is what runs.

`inspect` takes the first class of a name in a file and whole lines for a lambda; here what is found is the
one piece, and a file that has changed since it was imported is an error: its text is not what runs.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType
from typing import Any

from distill_ray.errors import SignatureError
from distill_ray.signature.user_code import is_pseudo_file

_NOTHING = object()


@dataclass(frozen=True)
class Piece:
    """Source text in whole lines (a lambda: in parentheses), and where it is.

    Attributes:
        text: the source, decorators included.
        file: the file's name, or the name of a notebook's cell.
        first: number of its first line.
        last: number of its last line.
    """

    text: str
    file: str
    first: int
    last: int

    def holds(self, code: CodeType) -> bool:
        """Whether a function's code comes from these lines."""
        return code.co_filename == self.file and self.first <= code.co_firstlineno <= self.last


def function_source(function: FunctionType) -> Piece:
    """Find the source of a function or lambda.

    Raises:
        SignatureError: there is none, it has changed since, or two lambdas on a line cannot be told apart.
    """
    code = function.__code__
    what = f"function '{function.__qualname__}'"
    file = _file(code.co_filename, function.__globals__)
    if file is None:
        raise no_source(what)
    check_unchanged(function, what)
    if code.co_name == "<lambda>":
        return _lambda_source(file, code)
    nodes = [
        node
        for node in file.definitions.get(code.co_name, ())
        if not isinstance(node, ast.ClassDef) and _first_line(node) == code.co_firstlineno
    ]
    if not nodes:
        raise _changed(what, code.co_filename)
    return file.piece(nodes[0])


def class_source(cls: type, functions: list[FunctionType], scope: Mapping[str, Any]) -> tuple[Piece, ...]:
    """Find the source of a class: more than one piece where it cannot be told which of them made it.

    Nothing is found of a class that was made without a ``class`` statement.

    Args:
        cls: the class.
        functions: the functions in it.
        scope: the globals of its module.
    """
    own = [inspect.unwrap(each).__code__ for each in functions if is_own(each, cls)]
    files = [file for name in sorted({code.co_filename for code in own}) if (file := _file(name, scope))]
    found = [
        pieces
        for file in [*files, *module_files(scope)]
        if (pieces := tuple(file.piece(node) for node in file.classes.get(cls.__qualname__, ())))
    ]
    if own:
        candidates = dict.fromkeys(piece for pieces in found for piece in pieces)
        return tuple(piece for piece in candidates if any(map(piece.holds, own)))
    return found[0] if found else ()


def is_own(function: FunctionType, cls: type) -> bool:
    """Whether a function was defined in the class's body."""
    return function.__qualname__ == f"{cls.__qualname__}.{function.__name__}"


def check_unchanged(function: FunctionType, what: str) -> None:
    """Hold that the function runs what its file says.

    Where the module's loader may rewrite code, as pytest's does, or the code is a notebook's, nothing can be
    compared.

    Raises:
        SignatureError: the file has changed since it was imported.
    """
    code = function.__code__
    plain = type(function.__globals__.get("__loader__")) is SourceFileLoader
    file = _file(code.co_filename, function.__globals__) if plain else None
    if file is not None and not is_pseudo_file(code.co_filename) and code not in file.codes:
        raise _changed(what, code.co_filename)


def statements_binding(name: str, scope: Mapping[str, Any], *, changing: bool = False) -> str:
    """Return the statements at the top level of a module that give a name its value ("": there are none).

    Args:
        name: the name.
        scope: the globals of the module.
        changing: return also those that set an attribute or item of the value, or call a method of it only
            for what that does.
    """
    return "".join(
        file.piece(node).text
        for file in module_files(scope)
        for node, bound, changed in file.statements
        if name in bound or (changing and name in changed)
    )


def imported_from(name: str, scope: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the module that a module's import statement takes a name from, and the name there."""
    for file in module_files(scope):
        named = [(absolute_module(m, level, scope), attr) for m, level, attr in file.imports.get(name, ())]
        starred = [(absolute_module(m, level, scope), name) for m, level, _ in file.imports.get("*", ())]
        for module, attribute in (*named, *starred):  # of several, as under `try`, the one whose value it has
            if name in scope and module_scope(module).get(attribute, _NOTHING) is scope[name]:
                return module, attribute
        if named:
            return named[-1]
    return None


def absolute_module(module: str, level: int, scope: Mapping[str, Any]) -> str:
    """Return the full name of a module that is imported with ``level`` leading dots."""
    if level == 0:
        return module
    package = str(scope.get("__package__") or "").split(".")
    return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])


def module_files(scope: Mapping[str, Any]) -> list[_File]:
    """Return the file of a module, or all cells of a notebook, the last one first."""
    name = scope.get("__file__")
    if name is not None:
        file = _file(str(name), scope)
        return [file] if file else []
    cells = [name for name in linecache.cache if is_pseudo_file(name) or "ipykernel_" in name]
    return [file for name in reversed(cells) if (file := _file(name, scope))]


class _File:
    """A file's text and what is in it, by name."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.tree = ast.parse(text)
        self.classes: dict[str, list[ast.ClassDef]] = {}
        self.definitions: dict[str, list[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        self._text = text
        self._lines = text.split("\n")
        self._gather(self.tree, "")

    def _gather(self, node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            inside = prefix
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self.definitions.setdefault(child.name, []).append(child)
                inside = f"{prefix}{child.name}."
                if isinstance(child, ast.ClassDef):
                    self.classes.setdefault(f"{prefix}{child.name}", []).append(child)
                else:
                    inside += "<locals>."
            self._gather(child, inside)

    @functools.cached_property
    def imports(self) -> dict[str, list[tuple[str, int, str]]]:
        """``from ..module import attribute as name`` at the top level: ``{name: [(module, 2, attribute)]}``.

        What ``from module import *`` brings is under ``*``.
        """
        found: dict[str, list[tuple[str, int, str]]] = {}
        for node in _top_level(self.tree.body):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    origin = (node.module or "", node.level, alias.name)
                    found.setdefault(alias.asname or alias.name, []).append(origin)
        return found

    @functools.cached_property
    def statements(self) -> list[tuple[ast.stmt, frozenset[str], frozenset[str]]]:
        """The statements at the top level that define nothing; of each the names it binds, and changes."""
        return [(node, _bound(node), _changed_in(node)) for node in _top_level(self.tree.body)]

    @functools.cached_property
    def codes(self) -> set[CodeType]:
        """The code of all functions in the file, as this Python compiles it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {compile(self._text, self.name, "exec", dont_inherit=True)}
        todo = list(found)
        while todo:
            inner = {const for const in todo.pop().co_consts if isinstance(const, CodeType)}
            todo.extend(inner - found)
            found |= inner
        return found

    def piece(self, node: ast.stmt) -> Piece:
        first, last = _first_line(node), node.end_lineno or node.lineno
        return Piece("\n".join(self._lines[first - 1 : last]) + "\n", self.name, first, last)

    def segment(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._text, node) or ""


def _file(name: str, scope: Mapping[str, Any]) -> _File | None:
    linecache.checkcache(name)
    text = "".join(linecache.getlines(name, dict(scope)))
    return _parsed(name, text) if text else None


@functools.lru_cache(maxsize=256)
def _parsed(name: str, text: str) -> _File | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _File(name, text)
    except SyntaxError:  # a notebook's cell with a magic command; a file that is being edited
        return None


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def no_source(what: str) -> SignatureError:
    """The error for code that nobody can read."""
    return SignatureError(
        f"the source of {what} cannot be found, so changes to it could not be noticed. Define it in a "
        'file, or set `version = "1"` on the class of the step and change it whenever the code changes.'
    )


def _changed(what: str, file: str) -> SignatureError:
    return SignatureError(
        f"{what} is not what {file} says: the file has changed since it was imported, or something rewrote "
        "the function. Start Python again (or reload the module and make the step anew), or set "
        '`version = "1"` on the class of the step and change it whenever the code changes.'
    )


def _lambda_source(file: _File, code: CodeType) -> Piece:
    nodes = [
        node
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno
    ]
    if not nodes:
        raise _changed("a lambda", code.co_filename)
    matching = [node for node in nodes if len(nodes) == 1 or _compiles_to(node, code)]
    texts = {file.segment(node) for node in matching}
    if len(texts) != 1:
        raise SignatureError(
            f"line {code.co_firstlineno} of {code.co_filename} has {len(nodes)} lambdas that cannot be told "
            "apart: give each a line of its own."
        )
    last = max(node.end_lineno or node.lineno for node in matching)
    return Piece(f"({texts.pop()})", file.name, code.co_firstlineno, last)


def _compiles_to(node: ast.Lambda, code: CodeType) -> bool:
    """Whether a lambda is the one with this code; what it captures are a function's parameters here."""
    outer = ast.parse(f"def outer({', '.join(code.co_freevars)}):\n    return None")
    function = outer.body[0]
    if isinstance(function, ast.FunctionDef):
        function.body = [ast.copy_location(ast.Return(value=node), node)]
    todo = [compile(outer, code.co_filename, "exec", dont_inherit=True)]
    while todo:
        found = todo.pop()
        if found.co_name == "<lambda>":
            return found.replace(co_flags=code.co_flags) == code
        todo.extend(const for const in found.co_consts if isinstance(const, CodeType))
    return False


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those under ``if`` and ``try`` included, that are no definitions."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            blocks = [node.body, node.orelse, *([node.finalbody] if isinstance(node, ast.Try) else [])]
            blocks.extend(handler.body for handler in getattr(node, "handlers", ()))
            for block in blocks:
                yield from _top_level(block)
        elif not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _bound(node: ast.stmt) -> frozenset[str]:
    """The names that a statement gives a value."""
    return frozenset(
        inner.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
    )


def _changed_in(node: ast.stmt) -> frozenset[str]:
    """Names of which a statement has ``name.attribute = ...``, ``name[item] = ...``, ``name.method(...)``."""
    found: set[str] = set()
    for inner in ast.walk(node):
        target: ast.AST | None = None
        if isinstance(inner, ast.Attribute | ast.Subscript) and not isinstance(inner.ctx, ast.Load):
            target = inner
        elif isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Call):
            target = inner.value.func
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
            if isinstance(target, ast.Name):
                found.add(target.id)
    return frozenset(found)


def class_scope(cls: type, functions: list[FunctionType]) -> Mapping[str, Any]:
    """Return the globals of a class's module, as its functions see them: it may have been imported anew."""
    scopes = (function.__globals__ for function in functions)
    return next((s for s in scopes if s.get("__name__") == cls.__module__), module_scope(cls.__module__))


def module_scope(module: str) -> dict[str, Any]:
    """Return the globals of a module that is imported."""
    return vars(sys.modules[module]) if module in sys.modules else {}
