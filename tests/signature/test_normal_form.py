"""The normal form keeps what a source does and drops how it is laid out."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
import textwrap
import typing
from types import ModuleType

import pytest

from distill_ray.signature.normal_form import normal_form


def without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            if isinstance(first.value.value, str):
                del node.body[0]
            if not node.body:
                node.body.append(ast.Pass())
    return ast.dump(tree)


def filled(text: str) -> str:
    """The text with ``pass`` where a docstring was all of a body, so that it can be parsed."""
    lines = text.split("\n")
    for index, line in enumerate(lines):
        heading = re.match(r"( *)(async |)(def|class) .*:$", line)
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if heading and not following.startswith(heading.group(1) + "    "):
            lines[index] = f"{line} pass"
    return "\n".join(lines)


@pytest.mark.parametrize(
    "module", [ast, dataclasses, enum, inspect, textwrap, typing], ids=lambda m: m.__name__
)
def test_it_means_what_the_source_means(module: ModuleType) -> None:
    text = inspect.getsource(module)
    lines = text.split("\n")
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        piece = "\n".join(lines[first - 1 : node.end_lineno])
        normal = normal_form(piece)
        assert without_docstrings(ast.parse(filled(normal))) == without_docstrings(ast.parse(piece))
        assert normal_form(normal) == normal
        assert "#" not in normal or "#" in without_docstrings(ast.parse(piece))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(): 'doc'", "def f ( ) :"),
        ("def f(): 'doc'; return 1", "def f ( ) : return 1"),
        ("def f():\n    'doc'; return 1", "def f ( ) :\n    return 1"),
        ("def f():\n    u'doc' R'doc'\n    return 1", "def f ( ) :\n    return 1"),
        ("def f():\n    # first\n\n    'doc'\n    'no doc'", "def f ( ) :\n    'no doc'"),
        ("def f():\n    b'no doc'", "def f ( ) :\n    b'no doc'"),
        ("def f():\n    f'no doc'", "def f ( ) :\n    f'no doc'"),
        ("def f():\n    'no doc'.strip()", "def f ( ) :\n    'no doc' . strip ( )"),
        ("def f(x={':': 'a'}) -> 'b': return 'c'", "def f ( x = { ':' : 'a' } ) -> 'b' : return 'c'"),
        ("class A: 'doc'", "class A :"),
        ("async def f():\n  'doc'\n  return 1", "async def f ( ) :\n    return 1"),
        ("  def f():\n\n     return (1 +\n 2)  # sum", "def f ( ) :\n    return ( 1 + 2 )"),
        ('f"{x!r:>{10}}" f\'{"a"}\' # {', 'f"{x!r:>{10}}" f\'{"a"}\''),
        ("x = '''a\n  # b'''", "x = '''a\n  # b'''"),
        ("if x:\n    y\nelse:\n    'text'", "if x :\n    y\nelse :\n    'text'"),
        ("x = 'a\x0cb\u2028c' + f'{1}'", "x = 'a\x0cb\u2028c' + f'{1}'"),
    ],
)
def test_comments_docstrings_and_layout_go(source: str, expected: str) -> None:
    assert normal_form(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('key = SecretStr("hidden")', "key = SecretStr ( '*' )"),
        (
            'f(Secret[str](env.get("K", "hidden")), "a")',
            "f ( Secret [ str ] ( env . get ( '*' , '*' ) ) , \"a\" )",
        ),
        ('key: SecretStr | None = "hidden"', "key : SecretStr | None = '*'"),
        ('key: p.SecretStr = Field("hidden")', "key : p . SecretStr = Field ( '*' )"),
        (
            'def f(key: SecretStr, mode="a"): return "b"',
            'def f ( key : SecretStr , mode = "a" ) : return "b"',
        ),
        ('texts: dict[str, SecretStr] = {"a": b}', 'texts : dict [ str , SecretStr ] = { "a" : b }'),
        ('api_key: Unsigned[str] = "hidden"', "api_key : Unsigned [ str ] = '*'"),
        ('mode: Unsigned[str] = "a"', 'mode : Unsigned [ str ] = "a"'),
        ('api_key: str = "a"', 'api_key : str = "a"'),
        ('if key == SecretStr: x = "a"', 'if key == SecretStr : x = "a"'),
        ("def f(): 'doc'; return SecretStr(b'hidden')", "def f ( ) : return SecretStr ( '*' )"),
    ],
)
def test_secrets_are_masked_and_nothing_else(source: str, expected: str) -> None:
    assert normal_form(source).replace("'**********'", "'*'") == expected
