"""What a row-wise step is handed: rows that hold its declared columns, and refuse to be asked for others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from distill_ray.errors import UndeclaredColumnError
from distill_ray.steps.base import Step
from distill_ray.types import Row


def declared_columns(step: Step) -> tuple[str, ...]:
    """Columns of the rows, under the pipeline's names, that the step declares to read; sorted."""
    return tuple(sorted({step.input_mappings.get(name, name) for name in step.inputs}))


def handed(rows: Iterable[Row], declared: Collection[str]) -> list[Row]:
    """The columns of the rows that are declared, both under the pipeline's names."""
    return [{name: value for name, value in row.items() if name in declared} for row in rows]


def declared_rows(rows: Iterable[Row], declared: Collection[str]) -> list[Row]:
    """Rows, under the step's names, that refuse to be asked for what is not declared."""
    return [DeclaredRow(row, declared) for row in rows]


class DeclaredRow(dict[str, Any]):
    """A row that holds the declared columns of an input row. What a step adds to it can be read again.

    Raises:
        UndeclaredColumnError: a column is asked for that the step does not declare: what it gives would
            depend on more than its stored rows are found by. Whether the input row has it does not matter.
    """

    __slots__ = ("_declared",)

    def __init__(self, row: Row, declared: Iterable[str]) -> None:
        super().__init__(row)
        self._declared = frozenset(declared)

    def __missing__(self, name: str) -> Any:
        self._check(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        self._check(name)
        return False

    def get(self, name: str, default: Any = None) -> Any:
        """Return the column's value, or the default where the row lacks it."""
        return self[name] if name in self else default  # noqa: SIM401 - not itself

    def pop(self, name: str, *default: Any) -> Any:
        """Take the column out; see `dict.pop`."""
        if name not in self and not default:
            raise KeyError(name)
        return super().pop(name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the column's value, putting the default there where the row lacks it."""
        if name not in self:
            self[name] = default
        return self[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return DeclaredRow, (dict(self), self._declared)

    def _check(self, name: object) -> None:
        if name in self._declared:
            return
        known = ", ".join(sorted(self._declared)) or "none"
        raise UndeclaredColumnError(
            f"it reads the column '{name}', which its `inputs` does not declare (they are: {known}). A "
            "row-wise step is handed its declared columns only: add it to `inputs` (`{'name': False}` where "
            "a row may lack it), or set `row_wise = False` in the class."
        )
