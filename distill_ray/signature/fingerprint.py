"""The fingerprint of users' code: the normal form of a class or function and of all user code it reaches.

Code is a graph: each piece of source, and each object of a user's class, is a node; a node's uses say what
the names in it stand for. Nodes are numbered as they are found, so equal graphs have equal digests and
nothing else counts: no line numbers, no module names, no Python version. What installed distributions hold
counts by name, and by ``version`` where a step or model has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distill_ray.signature.encode import digest
from distill_ray.signature.references import Declared, References, nothing_declared
from distill_ray.signature.uses import work_out


@dataclass(frozen=True)
class Fingerprint:
    """What a piece of code amounts to.

    Attributes:
        digest: SHA-256 of the graph, in hex.
        pieces: ``(name, normal form of source or digest of a value)``, sorted: for people, to compare.
        blind_spots: what the fingerprint cannot see, in sentences.
    """

    digest: str
    pieces: tuple[tuple[str, str], ...]
    blind_spots: tuple[str, ...] = ()


def fingerprint(code: Callable[..., Any], declared: Declared = nothing_declared) -> Fingerprint:
    """Fingerprint a class or function.

    Args:
        code: the class or function.
        declared: gives the stand-in of a value that the caller knows better than its attributes say.

    Raises:
        SignatureError: the source of a piece, or the content of a captured value, cannot be found.
    """
    references = References(declared)
    root = references.reference(code).digest
    pieces: dict[str, str] = {}
    graph = []
    for node in references.nodes:  # grows meanwhile
        work_out(node, references)
        graph.append([node.name, node.text, node.uses])
        if node.text:
            put_piece(pieces, node.name, node.text)
        for name, value in node.values.items():
            put_piece(pieces, f"{node.name}: value of {name}", value)
    blind_spots = tuple(sorted(references.blind_spots))
    return Fingerprint(digest([root, graph]), tuple(sorted(pieces.items())), blind_spots)


def put_piece(pieces: dict[str, str], name: str, text: str) -> None:
    """Put a piece among others; another of the same name is kept beside it."""
    number, free = 1, name
    while pieces.get(free, text) != text:
        number += 1
        free = f"{name} ({number})"
    pieces[free] = text
