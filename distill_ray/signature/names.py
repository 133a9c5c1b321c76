"""The names that a piece of source takes from outside itself: what it reaches.

Scopes are Python's own (`symtable`), so a local variable is never taken for a global of the same name.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_UNSEEN = frozenset(
    {
        *("getattr", "setattr", "vars", "globals", "locals", "eval", "exec", "compile", "__import__"),
        *(
            "import_module",
            "open",
            "read_text",
            "read_bytes",
            "environ",
            "getenv",
            "__doc__",
            "getdoc",
            "__file__",
            "__subclasses__",
        ),
    }
)
"""Names through which code comes by what its source does not show."""


@dataclass(frozen=True)
class LocalImport:
    """An import inside a function: ``name`` stands for ``attribute`` of ``module``, or for the module."""

    name: str
    module: str
    attribute: str | None
    level: int


@dataclass(frozen=True)
class Names:
    """What a piece of source uses.

    Attributes:
        used: names of the module's scope.
        bare: those that are also used other than as ``name.attribute``.
        chains: ``("a", "b", "c")`` for each ``a.b.c``.
        assigned: names of the module's scope that the piece itself sets (``global``).
        imports: imports inside functions.
        members: names that the bodies of classes give a value.
        unseen: words through which it comes by what its source does not show.
    """

    used: frozenset[str]
    bare: frozenset[str]
    chains: frozenset[tuple[str, ...]]
    assigned: frozenset[str]
    imports: tuple[LocalImport, ...]
    members: frozenset[str]
    unseen: frozenset[str]


@lru_cache(maxsize=4096)  # many steps of a pipeline are of the same class, or use the same code
def names_in(source: str) -> Names:
    r"""Find the names in whole lines of source, or in an expression in parentheses.

    Example:
        >>> sorted(names_in("def f(x):\n    y = LIMIT\n    return helpers.clean(x, y)").chains)
        [('helpers', 'clean')]
    """
    text = f"if 1:\n{source}" if source[:1] in {" ", "\t"} else source
    nodes = list(ast.walk(ast.parse(text)))
    tables = list(_tables(symtable.symtable(text, "<signature>", "exec")))
    symbols = [symbol for table in tables for symbol in table.get_symbols()]
    chains = {id(node): chain for node in nodes if (chain := _chain(node))}
    roots = {id(_root(node)) for node in nodes if id(node) in chains}
    words = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return Names(
        used=frozenset(s.get_name() for s in symbols if s.is_global() and s.is_referenced()),
        bare=frozenset(node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in roots),
        chains=frozenset(chains.values()),
        assigned=frozenset(
            symbol.get_name() for symbol in symbols if symbol.is_declared_global() and symbol.is_assigned()
        ),
        imports=tuple(each for node in nodes for each in _imports(node)),
        members=frozenset(
            symbol.get_name()
            for table in tables
            if str(table.get_type()) == "class"
            for symbol in table.get_symbols()
            if symbol.is_assigned()
        ),
        unseen=frozenset((words | attributes) & _UNSEEN),
    )


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _chain(node: ast.AST) -> tuple[str, ...]:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if names and isinstance(node, ast.Name) else ()


def _root(node: ast.AST) -> ast.AST:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node


def _imports(node: ast.AST) -> Iterator[LocalImport]:
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield LocalImport(alias.asname or alias.name, node.module or "", alias.name, node.level)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            root = alias.name.partition(".")[0]
            yield LocalImport(alias.asname or root, alias.name if alias.asname else root, None, 0)
            if "." in alias.name and not alias.asname:
                yield LocalImport(alias.name, alias.name, None, 0)
