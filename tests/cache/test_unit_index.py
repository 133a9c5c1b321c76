"""An index says of each unit where its rows stand, and what they are, also once parts were merged."""

from __future__ import annotations

from dataclasses import replace

from distill_ray.cache.part import decode_index, encode_part
from distill_ray.cache.rows import encode_rows
from distill_ray.cache.unit_index import UnitIndex, concat_indexes

A = b"a" * 16


def test_units_say_where_their_rows_stand() -> None:
    index = UnitIndex(bytes(16) + b"\x01" * 16 + b"\x02" * 16, (2, 0, 1), bytes(48), "run")
    assert list(index.units) == [(bytes(16), 0, 2), (b"\x01" * 16, 2, 0), (b"\x02" * 16, 2, 1)]


def test_copies_stay_copies_in_a_merged_part_and_in_what_is_read_of_it_for_one_it_replaced() -> None:
    made = UnitIndex(A * 2, (1, 1), bytes(32), "run")
    names = b"n" * 16 + b"m" * 16
    copied = replace(made, keys=A * 3, counts=(1, 0, 2), digests=bytes(48), copied=((1, 2),), answers=names)
    merged = concat_indexes([made, copied, made], "run", merged=("1", "2", "3"))
    assert (merged.copied, merged.answers) == (((3, 2),), names)
    none = b""
    assert merged.copied_from() == [none, none, none, names[:16], names[16:], none, none]
    assert [merged.copied_name(unit) for unit in range(7)] == merged.copied_from()
    found = merged.of_replaced("2")
    assert found is not None
    assert (found[0], found[1].copied, found[1].counts) == (2, ((1, 2),), (1, 0, 2))
    assert decode_index(encode_part(encode_rows([{"n": n} for n in range(7)]), merged)).copied == ((3, 2),)
