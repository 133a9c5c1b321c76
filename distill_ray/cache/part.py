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

import re
from hashlib import sha256
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from distill_ray.cache.unit_index import UnitIndex
from distill_ray.errors import CorruptObjectError, StorageError

_INDEX: Final = b"distill_ray.index"
_BODY: Final = b"distill_ray.body"
_FOOTER: Final = b"distill_ray.footer"
_MAGIC: Final = b"PAR1"
_ENDING: Final = 8  # the footer's length and the magic
_ZEROS: Final = b"0" * 64
_NO_LIMIT: Final = (1 << 31) - 1  # pyarrow refuses an index of a few million rows otherwise


def encode_part(table: pa.Table, index: UnitIndex) -> bytes:
    """Give the Parquet file that holds the table and its unit index.

    Args:
        table: what `encode_rows` gave.
        index: describes every row of the table.

    Raises:
        ValueError: the index does not describe this table.
    """
    problem = index.problem(table.num_rows)
    if problem:
        raise ValueError(f"The unit index does not fit the table: {problem}.")
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_INDEX: index.to_json(), _BODY: _ZEROS, _FOOTER: _ZEROS})
    return _seal(memoryview(sink.getvalue()))


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


def _seal(data: memoryview) -> bytes:
    """Put the digests into the footer."""
    start = len(data) - footer_size(bytes(data[-_ENDING:]))
    footer = bytes(data[start:])
    for key, digested in ((_BODY, data[:start]), (_FOOTER, None)):
        place = _find_seal(footer, key)
        if place is None:
            raise StorageError("This version of pyarrow writes a Parquet footer of an unknown form.")
        digest = sha256(footer if digested is None else digested).hexdigest().encode()
        footer = b"".join((footer[:place], digest, footer[place + 64 :]))
    return b"".join((data[:start], footer))


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
        index = UnitIndex.from_json(file.metadata.metadata[_INDEX])
        problem = index.problem(file.metadata.num_rows)
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise StorageError(f"its unit index cannot be read by this version: {error}") from error
    if problem:
        raise StorageError(f"its unit index does not fit its rows: {problem}")
    return file.metadata, index
