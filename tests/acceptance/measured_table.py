"""Tables in docs: each stands between markers and is written by the test that measures it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"

VARIABLE = "DISTILL_RAY_WRITE_TABLES"


def write_table(name: str, rows: Sequence[Mapping[str, Any]], page: str = "reliability.md") -> None:
    """Put a table in the place of the one of this name, where that is asked for; print it anyway.

    Args:
        name: the test module that measured it.
        rows: what was measured, by the columns' heads.
        page: the page that it stands on.
    """
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row[head]) for head in heads] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    print(f"\n{table}")
    if os.environ.get(VARIABLE):
        before, _, after = _split(name, page)
        (DOCS / page).write_text(f"{before}{table}{after}", encoding="utf-8")


def read_table(name: str, page: str = "reliability.md") -> list[dict[str, str]]:
    """The table of this name as it stands, for a test that measures only some of its rows anew."""
    lines = [
        line.removeprefix("|").removesuffix("|").split("|") for line in _split(name, page)[1].splitlines()
    ]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def _split(name: str, page: str) -> tuple[str, str, str]:
    """The page before the table, the table, and what comes after it."""
    begin, end = f"<!-- measured by tests/{name} -->\n", "<!-- until here -->\n"
    before, rest = (DOCS / page).read_text(encoding="utf-8").split(begin)
    table, after = rest.split(end, maxsplit=1)
    return before + begin, table, end + after
