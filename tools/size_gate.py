"""Says which module, class or function has outgrown its limit: a place to think, not a thought to cut in two.

Usage: ``python tools/size_gate.py [FOLDER ...]``. Prints one line for each offender and exits with 1 if there
is any, with 2 if a folder is missing. A function's docstring does not count: nobody shall save on it. That a
``type: ignore`` names its code is ruff's to check (PGH003).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE_LINES = 400
CLASS_LINES = 250
FUNCTION_LINES = 50
POSITIONAL_PARAMETERS = 6

FOLDERS = ("distill_ray", "examples", "benchmarks", "tools")


def offenders(path: Path) -> Iterator[str]:
    """Yield a line for each thing in a module that is over its limit."""
    source = path.read_text(encoding="utf-8")
    lines = len(source.splitlines())
    if lines > MODULE_LINES:
        yield f"{path}:1: the module has {lines} lines, the limit is {MODULE_LINES}"
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.ClassDef):
            yield from _too_long(path, node, _lines(node), f"class {node.name}", CLASS_LINES)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            counted = _lines(node) - _docstring_lines(node)
            yield from _too_long(path, node, counted, f"function {node.name}", FUNCTION_LINES)
            yield from _too_many_parameters(path, node)


def _too_long(path: Path, node: ast.stmt, lines: int, what: str, limit: int) -> Iterator[str]:
    if lines > limit:
        yield f"{path}:{node.lineno}: {what} has {lines} lines, the limit is {limit}"


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return 0 if ast.get_docstring(node, clean=False) is None else _lines(node.body[0])


def _too_many_parameters(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
    count = len(names) - (names[:1] in (["self"], ["cls"]))
    if count > POSITIONAL_PARAMETERS:
        yield (
            f"{path}:{node.lineno}: function {node.name} has {count} positional parameters, "
            f"the limit is {POSITIONAL_PARAMETERS}"
        )


def main(folders: list[str]) -> int:
    """Check the folders and return the exit code."""
    if missing := [folder for folder in folders if not Path(folder).is_dir()]:
        print(f"Size gate: no such folder: {', '.join(missing)}.")
        return 2
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    found = [line for path in paths for line in offenders(path)]
    print("\n".join(found) or f"Size gate: {len(paths)} modules are within their limits.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(FOLDERS)))
