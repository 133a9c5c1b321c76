"""Damage at rest costs a computation of what was damaged, and never a row: it is said, and mended by running.

The table in docs/reliability.md is written by ::

    DISTILL_RAY_WRITE_TABLES=1 pytest tests/integration/test_damaged_cache.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distill_ray.distiset import Distiset
from distill_ray.errors import CorruptObjectError, FormatVersionError
from distill_ray.storage import Storage
from tests.acceptance.measured_table import write_table
from tests.gcs_server import GcsRoot
from tests.integration.counted_chain import COMPUTED, FIRST, ROWS, Root, copied, expected_rows, rows_of


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def cut(storage: Storage, path: str, other: str) -> None:
    storage.publish(path, storage.read(path)[:-20])


def flip_in_front(storage: Storage, path: str, other: str) -> None:
    storage.publish(path, flipped(storage.read(path), 20))


def flip_near_the_end(storage: Storage, path: str, other: str) -> None:
    storage.publish(path, flipped(storage.read(path), -60))


def swap(storage: Storage, path: str, other: str) -> None:
    storage.publish(path, storage.read(other))


def empty(storage: Storage, path: str, other: str) -> None:
    storage.publish(path, b"")


def remove(storage: Storage, path: str, other: str) -> None:
    storage.delete([path])


DAMAGES: dict[str, Callable[[Storage, str, str], None]] = {
    "cut short": cut,
    "a bit flipped in front": flip_in_front,
    "a bit flipped near the end": flip_near_the_end,
    "another function's in its place": swap,
    "deleted": remove,
}
UNSEEN = ("a bit flipped in front", "a bit flipped near the end")
"""Damage that leaves names and sizes as they were: in the rows of a part, and in its footer."""


@dataclass(frozen=True)
class Case:
    """What is damaged, and what a run then computes.

    Attributes:
        what: what is damaged, for the reader.
        pattern: where it stands; the newest is taken.
        other: what is put in its place where it is swapped.
        amount: which chain is run: 0 the one that is stored whole, else one with another last step.
        again: rows that are computed again.
    """

    what: str
    pattern: str
    other: str
    amount: int
    again: dict[str, int]


PART_OF_LEAF = Case(
    "part of the leaf",
    "steps/Last-*/parts/*.parquet",
    "steps/Add-*/parts/*.parquet",
    0,
    {"last": ROWS - FIRST},
)
PART_ABOVE = Case(
    "part of a step above what changed",
    "steps/Add-*/parts/*.parquet",
    "steps/Last-*/parts/*.parquet",
    1,
    {"add": ROWS - FIRST},
)
MANIFESTS = (
    Case("manifest of the leaf", "steps/Last-*/outputs/*", "steps/Add-*/outputs/*", 0, {}),
    Case("manifest of a step above what changed", "steps/Add-*/outputs/*", "steps/Last-*/outputs/*", 1, {}),
)
RECORDS = Case("records: `signature.json`, those of runs and pipelines, heartbeats", "", "format.json", 0, {})
RECORD_PATTERNS = (
    "steps/*/signature.json",
    "runs/*/*",
    "pipelines/chain/*.json",
    "pipelines/chain/*/*.json",
)


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[tuple[str, str], dict[str, Any]]]:
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    yield lines
    if lines:
        write_table("integration/test_damaged_cache.py", list(lines.values()))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Root:
    root = Root(str(tmp_path_factory.mktemp("filled") / "root"))
    root.fill()
    return root


@pytest.fixture(params=["local", pytest.param("gcs", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path, filled: Root) -> Root:
    """A root that holds the chain, its rows in two parts for each step."""
    if request.param == "local":
        return copied(filled, tmp_path / "root")
    bucket: GcsRoot = request.getfixturevalue("gcs_root")
    root = Root(bucket.url, bucket.storage_options)
    root.fill()
    return root


def damage(root: Root, case: Case, how: str) -> str:
    """Damage what the case says: of parts and records the newest, and all manifests."""
    paths = root.paths(case.pattern)
    for path in paths if "/outputs/" in case.pattern else paths[-1:]:
        DAMAGES[how](root.storage, path, root.paths(case.other)[-1])
    return paths[-1]


def check_next_run_is_a_hit(root: Root, amount: int) -> None:
    again = root.run(amount=amount)
    assert rows_of(again) == expected_rows(amount)
    assert again.report.steps["last"].decision == "hit"
    assert again.report.repairs == []
    assert not COMPUTED


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("case", [PART_ABOVE, *MANIFESTS], ids=lambda case: case.what)
def test_a_run_that_meets_damage_computes_only_what_was_damaged(
    root: Root, case: Case, how: str, measured: dict[tuple[str, str], dict[str, Any]]
) -> None:
    damage(root, case, how)
    mended = root.run(amount=case.amount)
    assert rows_of(mended) == expected_rows(case.amount)
    changed = {"last": ROWS} if case.amount else {}
    assert {**changed, **case.again} == COMPUTED
    if (how, case.again) != ("deleted", {}):  # an output without a manifest is one that never ended
        assert mended.report.repairs
    check_next_run_is_a_hit(root, case.amount)
    note(measured, case, how, "by the run")


@pytest.mark.parametrize("how", [how for how in DAMAGES if how not in UNSEEN])
def test_a_part_of_a_leaf_that_is_gone_or_cut_is_no_hit(
    root: Root, how: str, measured: dict[tuple[str, str], dict[str, Any]]
) -> None:
    path = damage(root, PART_OF_LEAF, how)
    mended = root.run()
    assert rows_of(mended) == expected_rows()
    assert PART_OF_LEAF.again == COMPUTED
    assert mended.report.repairs
    assert all(Path(path).stem in said for said in mended.report.repairs)
    check_next_run_is_a_hit(root, 0)
    note(measured, PART_OF_LEAF, how, "by the run")


@pytest.mark.parametrize("how", UNSEEN)
def test_a_damaged_part_of_a_leaf_is_met_when_rows_are_read_and_mended_by_running_again(
    root: Root, how: str, measured: dict[tuple[str, str], dict[str, Any]]
) -> None:
    path = damage(root, PART_OF_LEAF, how)
    hit = root.run()
    with pytest.raises(CorruptObjectError, match=r"leaf 'default'.*was removed\. Run again") as told:
        rows_of(hit)
    assert path in str(told.value)
    mended = root.run()
    assert rows_of(mended) == expected_rows()
    assert PART_OF_LEAF.again == COMPUTED
    assert len(mended.report.repairs) == 1
    check_next_run_is_a_hit(root, 0)
    note(measured, PART_OF_LEAF, how, "when rows are read: an error says so, the next run mends it")


@pytest.mark.parametrize("amount", [0, 1])
@pytest.mark.parametrize("how", [how for how in DAMAGES if how != "a bit flipped near the end"])
def test_records_cost_nothing(
    filled: Root, tmp_path: Path, amount: int, how: str, measured: dict[tuple[str, str], dict[str, Any]]
) -> None:
    root = copied(filled, tmp_path / "root")
    damaged = [path for pattern in RECORD_PATTERNS for path in root.paths(pattern)]
    assert len(damaged) >= 14
    for path in damaged:
        DAMAGES[how](root.storage, path, "format.json")
    found = root.run(amount=amount)
    assert rows_of(found) == expected_rows(amount)
    assert ({"last": ROWS} if amount else {}) == COMPUTED
    check_next_run_is_a_hit(root, amount)
    note(measured, RECORDS, how, "not at all: nothing rests on it")


@pytest.mark.parametrize("root", ["local", "gcs"], indirect=True)
def test_damage_in_a_whole_chain_costs_what_was_damaged(root: Root) -> None:
    for step in ("Double", "Add", "Last"):
        for how, path in zip(UNSEEN, root.paths(f"steps/{step}-*/parts/*.parquet"), strict=True):
            DAMAGES[how](root.storage, path, path)
    mended = root.run(amount=1)
    assert rows_of(mended) == expected_rows(1)
    assert COMPUTED == {"double": ROWS, "add": ROWS, "last": ROWS}
    check_next_run_is_a_hit(root, 1)


@pytest.mark.parametrize(
    "how", ["cut short", "a bit flipped near the end", "another function's in its place"]
)
def test_a_damaged_part_of_no_output_is_said_and_passed_over(root: Root, how: str) -> None:
    """As an interrupted run leaves parts: no manifest tells their sizes."""
    storage = root.storage
    storage.delete([*root.paths("steps/Last-*/outputs/*")])
    path = damage(root, PART_OF_LEAF, how)
    mended = root.run()
    assert rows_of(mended) == expected_rows()
    assert COMPUTED == {"last": ROWS - FIRST}
    assert any(path in said for said in mended.report.repairs)
    check_next_run_is_a_hit(root, 0)


def test_what_hides_another_roots_damaged_part_counts_as_no_damage(filled: Root, tmp_path: Path) -> None:
    shared = copied(filled, tmp_path / "shared")
    damage(shared, PART_OF_LEAF, "a bit flipped in front")

    def run(rows: int) -> Distiset:
        pipeline = shared.declare(rows)
        pipeline.cache_dir = [str(tmp_path / "mine"), shared.url]
        return pipeline.run(engine="inline", progress="none")

    with pytest.raises(CorruptObjectError, match="was removed"):
        rows_of(run(ROWS))
    assert rows_of(run(ROWS)) == expected_rows()
    fewer = run(FIRST + 1)  # looks for its rows in all parts of these functions
    assert rows_of(fewer) == expected_rows()[: FIRST + 1]
    assert fewer.report.repairs == []


def test_a_root_whose_settings_are_gone_is_used_as_one_without_any(root: Root) -> None:
    root.storage.delete(["format.json"])
    check_next_run_is_a_hit(root, 0)
    root.run(amount=1)
    assert COMPUTED == {"last": ROWS}
    assert root.storage.read("format.json")


@pytest.mark.parametrize("how", [empty, cut, flip_in_front])
def test_damaged_settings_are_refused(root: Root, how: Callable[[Storage, str, str], None]) -> None:
    """Whether another salt holds is not guessed at."""
    root.storage.publish("format.json", b'{"format": 2, "salt": "2026"}')
    how(root.storage, "format.json", "")
    with pytest.raises(FormatVersionError, match=r"format\.json holds .* write it anew: {\"format\": 2}"):
        root.run()


def note(measured: dict[tuple[str, str], dict[str, Any]], case: Case, how: str, noticed: str) -> None:
    """Have a line of the table for what was found to be so."""
    again = ", ".join(f"{rows} of {ROWS} rows of `{step}`" for step, rows in case.again.items())
    known = measured.get((case.what, noticed), {"how": ""})
    hows = dict.fromkeys([*filter(None, known["how"].split("; ")), how])
    measured[case.what, noticed] = {
        "what is damaged": case.what,
        "how": "; ".join(hows),
        "noticed": noticed,
        "computed again": again or "nothing",
    }
