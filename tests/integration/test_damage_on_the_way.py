"""Damage done while a run is under way: the run mends it, computes what was damaged again, and says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distill_ray.storage import Storage
from tests.gcs_server import GcsRoot
from tests.integration.counted_chain import COMPUTED, FIRST, MOMENTS, ROWS, Root, expected_rows, rows_of


def flipped(storage: Storage, path: str) -> None:
    data = bytearray(storage.read(path))
    data[20] ^= 1
    storage.publish(path, bytes(data))


def cut(storage: Storage, path: str) -> None:
    storage.publish(path, storage.read(path)[:-20])


def deleted(storage: Storage, path: str) -> None:
    storage.delete([path])


DAMAGES: tuple[Callable[[Storage, str], None], ...] = (flipped, cut, deleted)


@pytest.fixture(params=["local", pytest.param("gcs", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.05")
    if request.param == "local":
        yield Root(str(tmp_path / "root"))
    else:
        bucket: GcsRoot = request.getfixturevalue("gcs_root")
        yield Root(bucket.url, bucket.storage_options)
    MOMENTS.clear()


def damage_when(
    root: Root, moment: tuple[str, int], how: Callable[[Storage, str], None], pattern: str, row: int
) -> None:
    """Damage the part that holds a row, once it is there, as a step comes to a row."""
    MOMENTS[moment] = lambda: how(root.storage, root.part_with(row, pattern))


def check_next_run_is_a_hit(root: Root, amount: int = 0) -> None:
    again = root.run(amount=amount)
    assert rows_of(again) == expected_rows(amount)
    assert (again.report.steps["last"].decision, again.report.repairs) == ("hit", [])
    assert not COMPUTED


@pytest.mark.parametrize("how", DAMAGES)
def test_stored_rows_damaged_while_they_are_read_are_computed_again(
    root: Root, how: Callable[[Storage, str], None]
) -> None:
    root.fill()
    damage_when(root, ("last", 0), how, "steps/Add-*/parts/*.parquet", ROWS - 1)
    mended = root.run(amount=1)
    assert rows_of(mended) == expected_rows(1)
    assert COMPUTED == {"add": ROWS - FIRST, "last": ROWS}
    assert len(mended.report.repairs) == 1
    assert mended.report.steps["add"].rows_computed == ROWS - FIRST
    check_next_run_is_a_hit(root, 1)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_manifest_damaged_while_its_output_is_read_is_written_again(
    root: Root, how: Callable[[Storage, str], None]
) -> None:
    """A run reads it once, at its beginning; the next run that needs it writes it anew, from its parts."""
    root.fill()

    def act() -> None:
        for path in root.paths("steps/Add-*/outputs/*"):
            how(root.storage, path)

    MOMENTS["last", 0] = act
    assert rows_of(root.run(amount=1)) == expected_rows(1)
    assert COMPUTED == {"last": ROWS}
    check_next_run_is_a_hit(root, 1)
    assert rows_of(root.run(amount=2)) == expected_rows(2)
    assert COMPUTED == {"last": ROWS}


@pytest.mark.parametrize("how", DAMAGES)
def test_rows_that_a_run_has_just_stored_may_be_damaged(
    root: Root, how: Callable[[Storage, str], None]
) -> None:
    """They are read again when small parts are merged, or when they are asked for."""
    damage_when(root, ("last", ROWS - 1), how, "steps/Double-*/parts/*.parquet", 0)
    made = root.run()
    assert rows_of(made) == expected_rows()
    assert COMPUTED["last"] == COMPUTED["add"] == ROWS
    assert COMPUTED["double"] <= 2 * ROWS
    assert rows_of(root.run(amount=1)) == expected_rows(1)
    check_next_run_is_a_hit(root, 1)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_part_of_the_leaf_damaged_before_the_end_is_never_given(
    root: Root, how: Callable[[Storage, str], None]
) -> None:
    damage_when(root, ("last", ROWS - 1), how, "steps/Last-*/parts/*.parquet", 0)
    made = root.run()
    done = Counter(COMPUTED)
    assert rows_of(made) == expected_rows()
    assert done["double"] == done["add"] == ROWS
    assert ROWS <= done["last"] < 2 * ROWS
    assert bool(made.report.repairs) == (done["last"] > ROWS)
    check_next_run_is_a_hit(root)
