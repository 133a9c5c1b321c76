"""Units are found by what they were made from, and each stored one is handed out once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.manifest import Manifest, PartEntry, Segment
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.unit_index import NO_UNIT, Limits, UnitIndex
from distill_ray.cache.units import StoredUnits, batch_key, end_key, offset_key, serves, unreplaced

A, B, C = (letter * 16 for letter in (b"a", b"b", b"c"))


def part(
    name: str, run: str, units: list[tuple[bytes, int]], replaces: tuple[str, ...] = ()
) -> tuple[PartEntry, UnitIndex]:
    rows = sum(count for _, count in units)
    digests = b"".join(f"{name}:{row:04d}".encode().ljust(16)[:16] for row in range(rows))
    keys = b"".join(key for key, _ in units)
    counts = tuple(count for _, count in units)
    return PartEntry(name, 1), UnitIndex(keys, counts, digests, run, replaces, 0.0, 0, 0)


def taken(stored: StoredUnits, key: bytes) -> list[tuple[str, int, int]]:
    found = []
    while (unit := stored.take(key)) is not None:
        assert len(unit.digests) == 16 * unit.rows
        found.append((unit.part.name, unit.first_row, unit.rows))
    return found


@given(
    st.lists(st.lists(st.binary(min_size=16, max_size=16))),
    st.lists(st.lists(st.binary(min_size=16, max_size=16))),
)
def test_a_batch_key_is_that_of_its_rows_and_of_how_they_are_joined(
    one: list[list[bytes]], other: list[list[bytes]]
) -> None:
    keys = [batch_key([b"".join(rows) for rows in each]) for each in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_keys_of_offsets_and_ends_never_meet() -> None:
    keys = [make(offset) for make in (offset_key, end_key) for offset in range(100)]
    assert len({*keys, batch_key([])}) == 201
    assert {len(key) for key in keys} == {16}


def test_a_unit_is_found_with_its_rows_and_their_digests() -> None:
    stored = StoredUnits([part("p", "run", [(A, 2), (B, 1)])])
    unit = stored.take(B)
    assert unit is not None
    assert (unit.first_row, unit.rows, unit.digests) == (2, 1, b"p:0002".ljust(16))
    assert stored.take(C) is None


def test_a_unit_without_rows_is_found_too() -> None:
    assert taken(StoredUnits([part("p", "run", [(A, 1), (B, 0), (C, 1)])]), B) == [("p", 1, 0)]


def test_the_kth_equal_key_takes_the_kth_stored_output() -> None:
    stored = StoredUnits([part("p", "run", [(A, 1), (B, 1), (A, 2)])])
    assert taken(stored, A) == [("p", 0, 1), ("p", 2, 2)]


def test_the_newest_runs_outputs_come_first() -> None:
    parts = [part("1", "run-1", [(A, 1), (A, 1)]), part("2", "run-2", [(A, 1)])]
    for order in (parts, parts[::-1]):
        assert taken(StoredUnits(order), A) == [("2", 0, 1), ("1", 0, 1), ("1", 1, 1)]


def test_a_merged_part_does_not_double_what_it_was_merged_from() -> None:
    """A crash between writing the merged part and removing the others leaves all of them."""
    parts = [
        part("1", "run", [(A, 1)]),
        part("2", "run", [(B, 1)]),
        part("3", "run", [(A, 1), (B, 1)], replaces=("1", "2")),
        part("4", "run", [(C, 1)]),
    ]
    stored = StoredUnits(parts)
    assert taken(stored, A) == [("3", 0, 1)]
    assert taken(stored, B) == [("3", 1, 1)]
    assert len(stored) == 3
    assert [entry.name for entry, _ in unreplaced(parts)] == ["3", "4"]


def test_parts_stand_for_themselves_where_the_merged_one_is_gone() -> None:
    assert taken(StoredUnits([part("1", "run", [(A, 1)])]), A) == [("1", 0, 1)]


def test_rows_of_outputs_that_are_handed_out_already_are_not_given_again() -> None:
    entry, index = part("p", "run", [(A, 2), (A, 1), (B, 0), (A, 3)])
    segments = (Segment(0, 3, 3), Segment(0, 0, 2))
    output = Manifest(FunctionId("Some", "0"), "key", 5, "content", (entry,), segments, {})
    stored = StoredUnits([(entry, index)], [output])
    assert taken(stored, A) == [("p", 2, 1)]
    assert taken(stored, B) == [("p", 3, 0)]


def test_what_an_output_holds_a_copy_of_is_handed_out_with_it() -> None:
    entry, made = part("1", "run 1", [(A, 1), (A, 1)])
    made = replace(made, wholes=B + C)
    other, copy = part("2", "run 2", [(A, 1)])
    copy = replace(copy, wholes=A, copied=((0, 1),), answers=made.answer_name(0, 0))
    output = Manifest(FunctionId("Some", "0"), "key", 1, "content", (other,), (Segment(0, 0, 1),), {})
    assert taken(StoredUnits([(entry, made), (other, copy)], [output]), A) == [("1", 1, 1)]


@dataclass
class Listed:
    """A stored unit as the rule sees it."""

    part: str
    first_row: int
    rows: int
    key: bytes
    whole: bytes
    used: bool = False


LETTERS = st.sampled_from([A, B, C, NO_UNIT])
UNITS = st.lists(
    st.tuples(LETTERS, LETTERS, st.integers(0, 2), st.tuples(st.integers(1, 4), st.none() | st.just(9))),
    max_size=6,
)


@given(
    parts=st.lists(UNITS, max_size=4),
    gone=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=6),
    limit=st.none() | st.integers(1, 10),
    asked=st.lists(st.tuples(st.booleans(), LETTERS), max_size=20),
)
def test_units_are_handed_out_newest_run_first_in_order_once_each_if_they_serve(
    parts: list[list[tuple[bytes, bytes, int, Limits]]],
    gone: set[tuple[int, int]],
    limit: int | None,
    asked: list[tuple[bool, bytes]],
) -> None:
    """Whichever way each is asked for; those that failed, or belong to other outputs, are never found."""
    found: list[tuple[PartEntry, UnitIndex]] = []
    listed: list[Listed] = []
    for number, units in enumerate(parts):
        entry, index = part(str(number), f"run-{number}", [(key, rows) for key, _, rows, _ in units])
        wholes = b"".join(whole for _, whole, _, _ in units)
        found.append((entry, replace(index, wholes=wholes, limits=tuple(each[3] for each in units))))
        offered = [
            Listed(entry.name, first_row, rows, key, units[position][1])
            for position, (key, first_row, rows) in enumerate(index.units)
            if key != NO_UNIT and serves(units[position][3], limit)
            if not (rows and (number, first_row) in gone)
        ]
        listed = offered + listed
    outputs = [
        Manifest(FunctionId("Some", "0"), "key", 1, "", (PartEntry(str(n), 1),), (Segment(0, row, 1),), {})
        for n, row in gone
    ]
    stored = StoredUnits(found, outputs, limit)
    assert len(stored) == len(listed)
    for by_whole, key in asked:
        unit = stored.take_whole(key) if by_whole else stored.take(key)
        wanted = next((u for u in listed if not u.used and key == (u.whole if by_whole else u.key)), None)
        if wanted is None:
            assert unit is None
        else:
            wanted.used = True
            assert unit is not None
            assert (unit.part.name, unit.first_row, unit.rows) == (
                wanted.part,
                wanted.first_row,
                wanted.rows,
            )
            assert len(unit.digests) == 16 * unit.rows
