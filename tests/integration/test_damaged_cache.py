"""A damaged cache costs a computation, never a wrong row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill_ray.errors import DistillRayError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepInput, StepOutput, step
from distill_ray.types import Row
from tests.damage import cut, flip


@step(inputs=["n"], outputs=["m"])
def double(rows: StepInput) -> StepOutput:
    for row in rows:
        row["m"] = 2 * row["n"]
    yield rows


def declare(root: Path) -> Pipeline:
    with Pipeline(name="damage", cache_dir=str(root)) as pipeline:
        LoadDataFromDicts(data=[{"n": n} for n in range(200)]) >> double(name="double")
    return pipeline


DAMAGES: dict[str, Callable[[Path], None]] = {
    "rows": lambda path: flip(path, 20),
    "footer": lambda path: flip(path, -60),
    "cut": lambda path: cut(path, 20),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("of", ["steps/*ouble-*/parts/*", "steps/*ouble-*/outputs/*", "steps/*/parts/*"])
def test_rows_are_right_or_an_error_says_to_run_again_once_for_each_damaged_file(
    cache_root: Path, of: str, damage: str
) -> None:
    expected = declare(cache_root).run(engine="inline")["default"]["train"].to_list()
    damaged = list(cache_root.glob(of))
    assert damaged
    for path in damaged:
        DAMAGES[damage](path)
    assert rows_of(cache_root, errors=len(damaged)) == expected
    again = declare(cache_root).run(engine="inline")
    assert again.report.steps["double"].decision == "hit"


def rows_of(root: Path, errors: int) -> list[Row]:
    try:
        return declare(root).run(engine="inline")["default"]["train"].to_list()
    except DistillRayError as error:
        assert "Run again" in str(error)  # noqa: PT017 - it need not be raised
        assert errors
    return rows_of(root, errors - 1)
