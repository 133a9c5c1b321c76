"""The normal form of source text: what is left when comments, docstrings, layout and secrets do not count.

Tokens are put one space apart, each logical line on its own, indented by its depth. An f-string is one token,
as it was before Python 3.12, so all versions give one text.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from distill_ray.credentials import names_credential

_F_STARTS = frozenset(getattr(tokenize, name, -1) for name in ("FSTRING_START", "TSTRING_START"))
_F_ENDS = frozenset(getattr(tokenize, name, -1) for name in ("FSTRING_END", "TSTRING_END"))
_LAYOUT = frozenset({tokenize.NL, tokenize.COMMENT, tokenize.ENCODING, tokenize.ENDMARKER})
_NO_DOCSTRING = re.compile(r"[a-z]*[bft]", re.IGNORECASE)
_SECRETS = frozenset({"SecretStr", "SecretBytes", "Secret"})
_MARKS = _SECRETS | {"Unsigned"}
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


@lru_cache(maxsize=4096)  # many steps of a pipeline are of the same class, or use the same code
def normal_form(source: str) -> str:
    r"""Give the normal form of a statement's whole lines, or of an expression in parentheses.

    Example:
        >>> print(normal_form("  def f(x):  # doubles\n    'Twice x.'\n\n    return (2 *\n  x)"))
        def f ( x ) :
            return ( 2 * x )
    """
    indented = source[:1] in {" ", "\t"}
    lines = _logical_lines(f"if 1:\n{source}" if indented else source)
    if indented:
        lines = [_Line(line.depth - 1, line.tokens) for line in lines[1:]]
    kept = [_Line(line.depth, _without_secrets(line.tokens)) for line in _without_docstrings(lines)]
    return "\n".join("    " * line.depth + " ".join(token.text for token in line.tokens) for line in kept)


@dataclass(frozen=True)
class _Token:
    text: str
    is_string: bool


@dataclass
class _Line:
    """One logical line: how deep it is indented, and its tokens."""

    depth: int
    tokens: list[_Token] = field(default_factory=list)


def _logical_lines(text: str) -> list[_Line]:
    depth = 0
    lines = [_Line(0)]
    for token in _tokens(text):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.NEWLINE:
            lines.append(_Line(depth))
        elif token.type not in _LAYOUT and token.string.strip():
            if not lines[-1].tokens:
                lines[-1].depth = depth
            lines[-1].tokens.append(_Token(token.string, token.type == tokenize.STRING))
    return [line for line in lines if line.tokens]


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    """Tokens in which an f-string is one string, cut out of the text as it stands there."""
    lines = io.StringIO(text).readlines()  # as the tokenizer counts them; str.splitlines knows more ends
    open_strings: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _F_STARTS:
            open_strings.append(token)
        elif token.type in _F_ENDS:
            start = open_strings.pop()
            if not open_strings:
                whole = _between(lines, start.start, token.end)
                yield tokenize.TokenInfo(tokenize.STRING, whole, start.start, token.end, start.line)
        elif not open_strings:
            yield token


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    first, last = start[0] - 1, end[0] - 1
    if first == last:
        return lines[first][start[1] : end[1]]
    return "".join([lines[first][start[1] :], *lines[first + 1 : last], lines[last][: end[1]]])


def _without_docstrings(lines: list[_Line]) -> list[_Line]:
    kept: list[_Line] = []
    body_of: _Line | None = None
    for line in lines:
        docstring = body_of is not None and line.depth > body_of.depth and _starts_with_text(line.tokens)
        body_of = None
        if docstring:
            line = _Line(line.depth, _after_text(line.tokens))  # noqa: PLW2901
        colon = _end_of_heading(line.tokens)
        if colon is not None:
            heading, body = line.tokens[: colon + 1], line.tokens[colon + 1 :]
            if not body:
                body_of = line
            elif _starts_with_text(body):
                line = _Line(line.depth, heading + _after_text(body))  # noqa: PLW2901
        if line.tokens:
            kept.append(line)
    return kept


def _end_of_heading(tokens: list[_Token]) -> int | None:
    """Index of the colon after which the body of a class or function begins."""
    words = [token.text for token in tokens[:2]]
    if words[:1] not in (["def"], ["class"]) and words != ["async", "def"]:
        return None
    depth = 0
    for index, token in enumerate(tokens):
        if token.text in _OPENING:
            depth += 1
        elif token.text in _CLOSING:
            depth -= 1
        elif token.text == ":" and depth == 0:
            return index
    return None


def _starts_with_text(tokens: list[_Token]) -> bool:
    """Whether the line's first statement is nothing but a text."""
    end = _count_texts(tokens)
    return end > 0 and (end == len(tokens) or tokens[end].text == ";")


def _after_text(tokens: list[_Token]) -> list[_Token]:
    return tokens[_count_texts(tokens) + 1 :]


def _count_texts(tokens: list[_Token]) -> int:
    for index, token in enumerate(tokens):
        if not token.is_string or _NO_DOCSTRING.match(token.text):
            return index
    return len(tokens)


def _without_secrets(tokens: list[_Token]) -> list[_Token]:
    """Mask texts: in ``SecretStr("..")``, ``a: SecretStr = ".."`` and ``api_key: Unsigned[str] = ".."``."""
    if not any(token.text in _MARKS for token in tokens):
        return tokens
    masked = _in_field(tokens)
    for start, token in enumerate(tokens):
        if token.text in _SECRETS and start + 1 < len(tokens) and tokens[start + 1].text in _OPENING:
            masked.update(range(start, _end_of_call(tokens, start + 1)))
    return [
        _Token("'**********'", is_string=True) if token.is_string and index in masked else token
        for index, token in enumerate(tokens)
    ]


def _in_field(tokens: list[_Token]) -> set[int]:
    """What is given to a name that is annotated as a secret: a text, or a ``Field`` with one."""
    words = [token.text for token in tokens]
    if words[1:2] != [":"] or "=" not in words:
        return set()
    equals = words.index("=")
    is_text = all(token.is_string for token in tokens[equals + 1 :])
    marks = _MARKS if names_credential(words[0]) else _SECRETS
    is_secret = not marks.isdisjoint(words[:equals]) and (is_text or words[equals + 1] == "Field")
    return set(range(equals, len(tokens))) if is_secret else set()


def _end_of_call(tokens: list[_Token], start: int) -> int:
    """Where the brackets that open at ``start`` end, and those right after: ``Secret[str]("...")``."""
    depth = 0
    for index in range(start, len(tokens)):
        depth += (tokens[index].text in _OPENING) - (tokens[index].text in _CLOSING)
        following = tokens[index + 1].text if index + 1 < len(tokens) else ""
        if depth == 0 and following not in _OPENING:
            return index
    return len(tokens)
