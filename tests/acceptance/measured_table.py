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
        begin, end = f"<!-- measured by tests/{name} -->\n", "<!-- until here -->\n"
        path = DOCS / page
        before, rest = path.read_text(encoding="utf-8").split(begin)
        after = rest.split(end, maxsplit=1)[1]
        path.write_text(f"{before}{begin}{table}{end}{after}", encoding="utf-8")
