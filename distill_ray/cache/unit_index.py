"""The unit index of a part: which rows were made from what, and what making them cost. Does no I/O."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, TypeAlias

import orjson

from distill_ray.cache.rows import DIGEST_SIZE, split_digests

NO_UNIT: Final = b"\xff" * DIGEST_SIZE
"""The key of a unit that failed: its rows are part of an output, but are never found again."""

Shape: TypeAlias = tuple[tuple[str, ...], tuple[str, ...] | None]
"""What of a row a row-wise step gave itself: its columns, and its keys in the column of metadata (or all)."""

Limits: TypeAlias = tuple[int, int | None]
"""The smallest and the largest limit that a unit's rows serve; None: there is no largest."""

_BYTES: Final = ("keys", "digests", "wholes", "answers")


@dataclass(frozen=True)
class UnitIndex:
    """What a part's rows were made from, and what making them cost.

    Attributes:
        keys: 16 bytes for each unit, in the order of the rows.
        counts: how many rows each unit gave; may be 0.
        digests: 16 bytes for each row, as `row_digests` gives them.
        run: the run that wrote the part.
        replaces: names of the parts that this one was merged from.
        seconds: time spent computing the rows.
        input_tokens: tokens sent to models for the rows.
        output_tokens: tokens that models answered with.
        replaced_rows: for each of ``replaces`` ``(first row, rows)``: where its rows stand in this part.
        wholes: for each unit of a row-wise step 16 bytes: digest of the input row with all its columns.
        shapes: what of its rows a row-wise step gave itself, each different shape once.
        row_shapes: ``(number of the shape, rows)`` for rows that follow each other.
        limits: for each unit the limits it serves; empty where the step has none.
        copied: ``(first unit, units)`` for units whose rows were put together from what the step gave for
            another unit of their key.
        answers: for each of these 16 bytes that name what the step gave: see `answer_name`.
    """

    keys: bytes
    counts: tuple[int, ...]
    digests: bytes
    run: str
    replaces: tuple[str, ...] = ()
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    replaced_rows: tuple[tuple[int, int], ...] = ()
    wholes: bytes = b""
    shapes: tuple[Shape, ...] = ()
    row_shapes: tuple[tuple[int, int], ...] = ()
    limits: tuple[Limits, ...] = ()
    copied: tuple[tuple[int, int], ...] = ()
    answers: bytes = b""

    @property
    def rows(self) -> int:
        """How many rows the part holds."""
        return sum(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and digests, which do not compress."""
        return len(self.keys) + len(self.digests) + len(self.wholes) + len(self.answers)

    @property
    def units(self) -> Iterator[tuple[bytes, int, int]]:
        """Each unit's ``(key, first row, row count)``, in order."""
        first = 0
        for key, count in zip(split_digests(self.keys), self.counts, strict=True):
            yield key, first, count
            first += count

    def of_replaced(self, name: str) -> tuple[int, UnitIndex] | None:
        """Give the first row in this part of a part that it replaces, and the index which that one had."""
        places = dict(zip(self.replaces, self.replaced_rows, strict=False))
        if name not in places:
            return None
        start, rows = places[name]
        units = [
            number
            for number, (_, first, count) in enumerate(self.units)
            if start <= first and first + count <= start + rows
        ]
        shapes = self.shapes_of_rows()[start : start + rows]
        copied_from = self.copied_from()
        copied, answers = pack_copies([copied_from[number] for number in units])
        index = replace(
            self,
            keys=_items(self.keys, units),
            counts=tuple(self.counts[number] for number in units),
            digests=self.digests[start * DIGEST_SIZE : (start + rows) * DIGEST_SIZE],
            wholes=_items(self.wholes, units),
            shapes=tuple(dict.fromkeys(shapes)),
            limits=tuple(self.limits[number] for number in units if self.limits),
            copied=copied,
            answers=answers,
        )
        numbers = {shape: number for number, shape in enumerate(index.shapes)}
        return start, replace(index, row_shapes=tuple((numbers[shape], 1) for shape in shapes))

    def copied_from(self) -> list[bytes]:
        """For each unit the name of the answer that it is a copy of; empty: it is none."""
        found = [b""] * len(self.counts)
        names, start = split_digests(self.answers), 0
        for first, units in self.copied:
            found[first : first + units] = names[start : start + units]
            start += units
        return found

    def copied_name(self, unit: int) -> bytes:
        """The name of the answer that a unit is a copy of; empty: it is none."""
        start = 0
        for first, units in self.copied:
            if first <= unit < first + units:
                place = (start + unit - first) * DIGEST_SIZE
                return self.answers[place : place + DIGEST_SIZE]
            start += units
        return b""

    def answer_name(self, unit: int, first_row: int) -> bytes:
        """Name, in 16 bytes, what the step gave for a unit, which begins with this row, and is no copy.

        Copies of it have that name too, in whatever part they are: of all of them a run is given one.
        """
        rows = self.digests[first_row * DIGEST_SIZE : (first_row + self.counts[unit]) * DIGEST_SIZE]
        return sha256(self.wholes[unit * DIGEST_SIZE : (unit + 1) * DIGEST_SIZE] + rows).digest()[
            :DIGEST_SIZE
        ]

    def shapes_of_rows(self) -> list[Shape]:
        """Give each row's shape, in order; none where the step is not row-wise."""
        return [self.shapes[number] for number, rows in self.row_shapes for _ in range(rows)]

    def problem(self, rows: int) -> str | None:
        """Say in what the index does not describe so many rows."""
        units = len(self.counts)
        shaped = sum(count for _, count in self.row_shapes)
        copies = sum(count for _, count in self.copied)
        shapes = range(len(self.shapes))
        wrong = {
            f"{len(self.keys)} bytes of keys for {units} units": len(self.keys) != DIGEST_SIZE * units,
            "it counts less than no rows": any(count < 0 for count in self.counts),
            f"it counts {self.rows} rows, there are {rows}": self.rows != rows,
            f"{len(self.digests)} bytes of digests for {rows} rows": len(self.digests) != DIGEST_SIZE * rows,
            "digests of some input rows are missing": len(self.wholes) not in (0, DIGEST_SIZE * units),
            "limits of some units are missing": len(self.limits) not in (0, units),
            f"it gives shapes of {shaped} rows, there are {rows}": shaped not in (0, rows),
            "it tells of copies that it lacks": any(first + count > units for first, count in self.copied),
            "it does not say what its copies are of": len(self.answers) != DIGEST_SIZE * copies,
            "it names a shape that it lacks": any(number not in shapes for number, _ in self.row_shapes),
            "the place of a replaced part is missing": len(self.replaced_rows) not in (0, len(self.replaces)),
        }
        return next((problem for problem, found in wrong.items() if found), None)

    def to_json(self) -> bytes:
        """As JSON, binary values in base64."""
        record = vars(self)
        return orjson.dumps({**record, **{name: b64encode(record[name]).decode() for name in _BYTES}})

    @classmethod
    def from_json(cls, text: bytes) -> UnitIndex:
        """Read it back.

        Raises:
            LookupError, TypeError, ValueError: it is something else.
        """
        record: dict[str, Any] = orjson.loads(text)
        for name in _BYTES:
            record[name] = b64decode(record[name], validate=True)
        for name in ("counts", "replaces"):
            record[name] = tuple(record[name])
        for name in ("replaced_rows", "row_shapes", "limits", "copied"):
            record[name] = tuple((first, second) for first, second in record[name])
        record["shapes"] = tuple(
            (tuple(columns), None if keys is None else tuple(keys)) for columns, keys in record["shapes"]
        )
        return cls(**record)


def _items(digests: bytes, numbers: Sequence[int]) -> bytes:
    """Those with these numbers of digests that stand one after the other."""
    return b"".join(digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE] for number in numbers)


def pack_copies(copied_from: Sequence[bytes]) -> tuple[tuple[tuple[int, int], ...], bytes]:
    """Give ``copied`` and ``answers`` of an index, from what `UnitIndex.copied_from` gives of it."""
    flags = bytes(map(bool, copied_from))
    stretches = tuple((found.start(), len(found[0])) for found in re.finditer(b"\1+", flags))
    return stretches, b"".join(copied_from)


def concat_indexes(indexes: Sequence[UnitIndex], run: str, merged: Sequence[str] = ()) -> UnitIndex:
    """Give the index of a part that holds the rows of several one after the other.

    Args:
        indexes: theirs.
        run: the run that writes the part.
        merged: names of the parts that the indexes are of, where these are replaced by the new one.
    """
    numbers: dict[Shape, int] = {}
    row_shapes: list[tuple[int, int]] = []
    replaces: list[str] = []
    replaced_rows: list[tuple[int, int]] = []
    first = 0
    for position, index in enumerate(indexes):
        for number, rows in index.row_shapes:
            shape = numbers.setdefault(index.shapes[number], len(numbers))
            if row_shapes and row_shapes[-1][0] == shape:
                rows += row_shapes.pop()[1]  # noqa: PLW2901
            row_shapes.append((shape, rows))
        if merged:  # also what the merged ones replaced: a crash may have left all generations behind
            replaces += [merged[position], *index.replaces]
            replaced_rows += [(first, index.rows)]
            replaced_rows += [(first + start, rows) for start, rows in index.replaced_rows]
        first += index.rows
    copied, answers = pack_copies([name for index in indexes for name in index.copied_from()])
    return UnitIndex(
        keys=b"".join(each.keys for each in indexes),
        counts=tuple(count for each in indexes for count in each.counts),
        digests=b"".join(each.digests for each in indexes),
        run=run,
        replaces=tuple(replaces),
        seconds=sum(each.seconds for each in indexes),
        input_tokens=sum(each.input_tokens for each in indexes),
        output_tokens=sum(each.output_tokens for each in indexes),
        replaced_rows=tuple(replaced_rows),
        wholes=b"".join(each.wholes for each in indexes),
        shapes=tuple(numbers),
        row_shapes=tuple(row_shapes),
        limits=tuple(each for index in indexes for each in index.limits),
        copied=copied,
        answers=answers,
    )
