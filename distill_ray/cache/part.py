"""One part: a Parquet file of rows whose footer holds its unit index; bytes to tables and back.

A part is plain Parquet with the user's columns. Its footer's key-value metadata holds three texts of ours:

- ``distill_ray.index``: the unit index as JSON (binary values in base64)
- ``distill_ray.body``: the SHA-256 of all bytes that stand before the footer
- ``distill_ray.footer``: the SHA-256 of all bytes from the footer on, this text itself taken as 64 zeros

So every byte is covered, and a footer read by itself is known to be whole before it is parsed. The last of
the three vouches for all the rest: a part's name ends with a digest of it and of the step function, so that
a part of another function is known for what it is. Pages carry Parquet's own checksums as well, for other
readers.
"""

from __future__ import annotations

import io
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from distill_ray.cache.rows import DIGEST_SIZE, split_digests
from distill_ray.errors import CorruptObjectError, StorageError

_INDEX: Final = b"distill_ray.index"
_BODY: Final = b"distill_ray.body"
_FOOTER: Final = b"distill_ray.footer"
_MAGIC: Final = b"PAR1"
_ENDING: Final = 8  # the footer's length and the magic
_ZEROS: Final = b"0" * 64
_NO_LIMIT: Final = (1 << 31) - 1  # pyarrow refuses an index of a few million rows otherwise


NO_UNIT: Final = b"\xff" * DIGEST_SIZE
"""The key of a unit that failed: its rows are part of an output, but are never found again."""

Shape: TypeAlias = tuple[tuple[str, ...], tuple[str, ...] | None]
"""What of a row a row-wise step gave itself: its columns, and its keys in the column of metadata (or all)."""

Limits: TypeAlias = tuple[int, int | None]
"""The smallest and the largest limit that a unit's rows serve; None: there is no largest."""


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


def encode_part(table: pa.Table, index: UnitIndex) -> bytes:
    """Give the Parquet file that holds the table and its unit index.

    Args:
        table: what `encode_rows` gave.
        index: describes every row of the table.

    Raises:
        ValueError: the index does not describe this table.
    """
    problem = _problem(index, table.num_rows)
    if problem:
        raise ValueError(f"The unit index does not fit the table: {problem}.")
    sink = io.BytesIO()
    writer = pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    writer.write_table(table)
    body = sink.getvalue()
    digest = sha256(body).hexdigest().encode()
    writer.add_key_value_metadata({_INDEX: _index_to_json(index), _BODY: digest, _FOOTER: _ZEROS})
    writer.close()
    return _seal(sink.getvalue(), len(body))


def decode_part(data: bytes) -> tuple[pa.Table, UnitIndex]:
    """Give the table and the unit index that `encode_part` made the file from.

    Raises:
        CorruptObjectError: the file is cut short, changed in any byte, or was never a part.
        StorageError: the file is whole, but this version of pyarrow cannot read it.
    """
    needed = footer_size(data)
    if needed > len(data):
        raise CorruptObjectError("it is cut short: the footer is longer than the file")
    footer = data[len(data) - needed :]
    check_footer(footer)
    if sha256(memoryview(data)[: len(data) - needed]).hexdigest().encode() != _sealed(footer, _BODY):
        raise CorruptObjectError("its rows are not what was written: the checksum differs")
    metadata, index = _parse_footer(footer)
    try:
        file = pq.ParquetFile(pa.BufferReader(data), metadata=metadata, page_checksum_verification=True)
        # A thread of pyarrow's that lets go of `data` while Python ends would abort the process.
        table = file.read(use_threads=False).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"its rows cannot be read by this version of pyarrow: {error}") from error
    return table, index


def footer_size(tail: bytes) -> int:
    """Give how many of a Parquet file's last bytes its footer takes, from its last bytes, eight at least.

    Raises:
        CorruptObjectError: this is not the end of one.
    """
    if len(tail) < _ENDING or not tail.endswith(_MAGIC):
        raise CorruptObjectError("it is cut short, or not Parquet: its end is missing")
    return int.from_bytes(tail[-_ENDING : -len(_MAGIC)], "little") + _ENDING


def check_footer(tail: bytes) -> str:
    """See that a part's footer is what was written; give its digest, which vouches for the whole part.

    Args:
        tail: the part's last bytes, `footer_size` of them at least.

    Raises:
        CorruptObjectError: it is not.
    """
    needed = footer_size(tail)
    footer = tail[max(0, len(tail) - needed) :]
    place = _find_seal(footer, _FOOTER)
    if needed > len(tail) or place is None:
        raise CorruptObjectError("its unit index is missing or damaged: it is not a whole part")
    digest = sha256(b"".join((footer[:place], _ZEROS, footer[place + 64 :]))).hexdigest()
    if digest.encode() != footer[place : place + 64]:
        raise CorruptObjectError("its footer is not what was written: the checksum differs")
    return digest


def decode_index(tail: bytes) -> UnitIndex:
    """Give the unit index from a part's last bytes, `footer_size` of them at least.

    Raises:
        CorruptObjectError: the footer is damaged, or this was never a part.
        StorageError: the footer is whole, but this version cannot read it.
    """
    check_footer(tail)
    return _parse_footer(tail[len(tail) - footer_size(tail) :])[1]


def _seal(data: bytes, body: int) -> bytes:
    """Put the footer's digest into the footer."""
    footer = data[body:]
    place = _find_seal(footer, _FOOTER)
    if place is None or _sealed(footer, _BODY) is None or footer_size(data) != len(footer):
        raise StorageError("This version of pyarrow writes a Parquet footer of an unknown form.")
    digest = sha256(footer).hexdigest().encode()
    return b"".join((data[:body], footer[:place], digest, footer[place + 64 :]))


def _find_seal(footer: bytes, key: bytes) -> int | None:
    """Give where the digest under this key stands."""
    # In Thrift's compact form a field's header and a length, a byte each, stand between key and value.
    found = [match.start(1) for match in re.finditer(re.escape(key) + rb"\x18\x40([0-9a-f]{64})", footer)]
    return found[-1] if found else None


def _sealed(footer: bytes, key: bytes) -> bytes | None:
    place = _find_seal(footer, key)
    return None if place is None else footer[place : place + 64]


def _parse_footer(footer: bytes) -> tuple[Any, UnitIndex]:
    """Give Parquet's metadata and the unit index of a footer that is known to be whole."""
    try:
        file = pq.ParquetFile(
            pa.BufferReader(_MAGIC + footer),
            thrift_string_size_limit=_NO_LIMIT,
            thrift_container_size_limit=_NO_LIMIT,
        )
        index = _index_from_json(file.metadata.metadata[_INDEX])
        problem = _problem(index, file.metadata.num_rows)
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise StorageError(f"its unit index cannot be read by this version: {error}") from error
    if problem:
        raise StorageError(f"its unit index does not fit its rows: {problem}")
    return file.metadata, index


def _problem(index: UnitIndex, rows: int) -> str | None:
    """Say in what an index does not describe so many rows."""
    units = len(index.counts)
    shaped = sum(count for _, count in index.row_shapes)
    wrong = {
        f"{len(index.keys)} bytes of keys for {units} units": len(index.keys) != DIGEST_SIZE * units,
        "it counts less than no rows": any(count < 0 for count in index.counts),
        f"it counts {index.rows} rows, there are {rows}": index.rows != rows,
        f"{len(index.digests)} bytes of digests for {rows} rows": len(index.digests) != DIGEST_SIZE * rows,
        "digests of some input rows are missing": len(index.wholes) not in (0, DIGEST_SIZE * units),
        "limits of some units are missing": len(index.limits) not in (0, units),
        f"it gives shapes of {shaped} rows, there are {rows}": shaped not in (0, rows),
        "it tells of copies that it lacks": any(first + count > units for first, count in index.copied),
        "it does not say what its copies are of": len(index.answers)
        != DIGEST_SIZE * sum(count for _, count in index.copied),
        "it names a shape that it lacks": any(n not in range(len(index.shapes)) for n, _ in index.row_shapes),
        "the place of a replaced part is missing": len(index.replaced_rows) not in (0, len(index.replaces)),
    }
    return next((problem for problem, found in wrong.items() if found), None)


_BYTES: Final = ("keys", "digests", "wholes", "answers")


def _index_to_json(index: UnitIndex) -> bytes:
    record = vars(index)
    return orjson.dumps({**record, **{name: b64encode(record[name]).decode() for name in _BYTES}})


def _index_from_json(text: bytes) -> UnitIndex:
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
    return UnitIndex(**record)
