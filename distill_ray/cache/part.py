"""One part: a Parquet file of rows whose footer holds its unit index; bytes to tables and back.

A part is plain Parquet with the user's columns. Its footer's key-value metadata holds two texts of ours:

- ``distill_ray.index``: the unit index as JSON (binary values in base64), with the SHA-256 of all bytes that
  stand before the footer
- ``distill_ray.footer``: the SHA-256 of all bytes from the footer on, this text itself taken as 64 zeros

So every byte is covered, and a footer read by itself is known to be whole before it is parsed. Pages carry
Parquet's own checksums as well, for other readers.
"""

from __future__ import annotations

import io
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.errors import CorruptObjectError

KEY_SIZE: Final = 16
"""Bytes of one unit's key."""

_INDEX: Final = b"distill_ray.index"
_FOOTER: Final = b"distill_ray.footer"
_MAGIC: Final = b"PAR1"
_ENDING: Final = 8  # the footer's length and the magic
_ZEROS: Final = b"0" * 64
# In Thrift's compact form a field's header and a length, one byte each, stand between a key and its value.
_SEAL: Final = re.compile(re.escape(_FOOTER) + rb"\x18\x40([0-9a-f]{64})", re.DOTALL)


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
    """

    keys: bytes
    counts: tuple[int, ...]
    digests: bytes
    run: str
    replaces: tuple[str, ...]
    seconds: float
    input_tokens: int
    output_tokens: int

    @property
    def rows(self) -> int:
        """How many rows the part holds."""
        return sum(self.counts)

    @property
    def units(self) -> Iterator[tuple[bytes, int, int]]:
        """Each unit's ``(key, first row, row count)``, in order."""
        first = 0
        for number, count in enumerate(self.counts):
            yield self.keys[number * KEY_SIZE : (number + 1) * KEY_SIZE], first, count
            first += count


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
    metadata = {_INDEX: _index_to_json(index, sha256(body).hexdigest()), _FOOTER: _ZEROS}
    writer.add_key_value_metadata(metadata)
    writer.close()
    return _seal(sink.getvalue(), len(body))


def decode_part(data: bytes) -> tuple[pa.Table, UnitIndex]:
    """Give the table and the unit index that `encode_part` made the file from.

    Raises:
        CorruptObjectError: the file is cut short, changed in any byte, or was never a part.
    """
    needed = _footer_size(data, len(data))
    if needed > len(data) - len(_MAGIC):
        raise CorruptObjectError("it is cut short: the footer is longer than the file")
    footer = data[len(data) - needed :]
    index, body_digest = _read_footer(footer)
    if sha256(memoryview(data)[: len(data) - needed]).hexdigest() != body_digest:
        raise CorruptObjectError("its rows are not what was written: the checksum differs")
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read().replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise CorruptObjectError(f"its rows cannot be read: {error}") from error
    return table, index


def decode_index(tail: bytes, size: int) -> UnitIndex | int:
    """Read the unit index from a part's last bytes.

    Args:
        tail: the last bytes of the file, however many the caller has.
        size: the size of the whole file.

    Returns:
        The index, or, where the tail is too short, how many of the last bytes hold it. A number above ``size``
        is only given where the tail is the whole of ``size``: nothing more can be read, so it is damaged.

    Raises:
        CorruptObjectError: the footer is damaged, or this was never a part.
    """
    if len(tail) < min(size, _ENDING):
        return _ENDING
    needed = _footer_size(tail, size)
    if needed <= len(tail):
        return _read_footer(tail[len(tail) - needed :])[0]
    if needed > size > len(tail):
        raise CorruptObjectError("it is cut short: the footer is longer than the file")
    return needed


def part_digest(data: bytes) -> str:
    """Give the SHA-256 of a part's bytes, in hexadecimal digits."""
    return sha256(data).hexdigest()


def _footer_size(tail: bytes, size: int) -> int:
    """Give how many of the last bytes are the footer, its length and the magic."""
    if size < len(_MAGIC) + _ENDING or not tail.endswith(_MAGIC):
        raise CorruptObjectError("it is cut short, or not Parquet: its end is missing")
    return int.from_bytes(tail[-_ENDING : -len(_MAGIC)], "little") + _ENDING


def _seal(data: bytes, body: int) -> bytes:
    """Put the footer's digest into the footer."""
    footer = data[body:]
    place = _find_seal(footer)
    if place is None or footer[place : place + 64] != _ZEROS or _footer_size(data, len(data)) != len(footer):
        raise ValueError("This version of pyarrow writes a Parquet footer of an unknown form.")
    digest = sha256(footer).hexdigest().encode()
    return b"".join((data[:body], footer[:place], digest, footer[place + 64 :]))


def _find_seal(footer: bytes) -> int | None:
    found = [match.start(1) for match in _SEAL.finditer(footer)]
    return found[-1] if found else None


def _read_footer(footer: bytes) -> tuple[UnitIndex, str]:
    """Give the unit index and the digest of the bytes before the footer, once the footer is known to be whole."""
    place = _find_seal(footer)
    if place is None:
        raise CorruptObjectError("its unit index is missing or damaged: it is not a whole part")
    digest = sha256(b"".join((footer[:place], _ZEROS, footer[place + 64 :]))).hexdigest().encode()
    if digest != footer[place : place + 64]:
        raise CorruptObjectError("its footer is not what was written: the checksum differs")
    try:
        parsed = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
        index, body = _index_from_json(parsed.metadata[_INDEX])
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise CorruptObjectError(f"its unit index cannot be read: {error}") from error
    problem = _problem(index, parsed.num_rows)
    if problem:
        raise CorruptObjectError(f"its unit index does not fit its rows: {problem}")
    return index, body


def _problem(index: UnitIndex, rows: int) -> str | None:
    """Say in what an index does not describe so many rows."""
    if len(index.keys) != KEY_SIZE * len(index.counts):
        return f"{len(index.keys)} bytes of keys for {len(index.counts)} units"
    if any(count < 0 for count in index.counts) or index.rows != rows:
        return f"it counts {index.rows} rows, there are {rows}"
    if len(index.digests) != DIGEST_SIZE * rows:
        return f"{len(index.digests)} bytes of digests for {rows} rows"
    return None


def _index_to_json(index: UnitIndex, body: str) -> bytes:
    return orjson.dumps(
        {
            "keys": b64encode(index.keys).decode(),
            "counts": index.counts,
            "digests": b64encode(index.digests).decode(),
            "run": index.run,
            "replaces": index.replaces,
            "seconds": index.seconds,
            "input_tokens": index.input_tokens,
            "output_tokens": index.output_tokens,
            "body": body,
        }
    )


def _index_from_json(text: bytes) -> tuple[UnitIndex, str]:
    record: dict[str, Any] = orjson.loads(text)
    index = UnitIndex(
        keys=b64decode(record["keys"], validate=True),
        counts=tuple(record["counts"]),
        digests=b64decode(record["digests"], validate=True),
        run=record["run"],
        replaces=tuple(record["replaces"]),
        seconds=float(record["seconds"]),
        input_tokens=record["input_tokens"],
        output_tokens=record["output_tokens"],
    )
    return index, record["body"]
