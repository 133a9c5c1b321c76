"""A part: one immutable Parquet file of rows, with the index of its units in the footer. Bytes in, bytes out."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from distill_ray.errors import CorruptObjectError

INDEX_KEY = b"distill_ray.index"
KEY_BYTES = 16
MAGIC = b"PAR1"


@dataclass(frozen=True)
class UnitIndex:
    """Which units a part holds.

    Attributes:
        keys: 16 bytes for each unit.
        counts: rows of each unit; may be 0.
        digests: 16 bytes for each row.
        run: the run that wrote the part.
        replaces: names of the parts that were merged into this one.
        seconds: seconds of work that the rows took.
        input_tokens: tokens that models read for them.
        output_tokens: tokens that models wrote for them.
    """

    keys: bytes
    counts: tuple[int, ...]
    digests: bytes
    run: str
    replaces: tuple[str, ...] = ()
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def units(self) -> Iterator[tuple[bytes, int, int]]:
        """``(key, first row in the part, rows)`` of each unit."""
        first_row = 0
        for number, rows in enumerate(self.counts):
            yield self.keys[number * KEY_BYTES : (number + 1) * KEY_BYTES], first_row, rows
            first_row += rows


def encode_part(table: pa.Table, index: UnitIndex) -> bytes:
    """Give the Parquet file: zstd, page checksums, no dictionary or statistics."""
    record = asdict(index)
    for name in ("keys", "digests"):
        record[name] = base64.b64encode(record[name]).decode("ascii")
    metadata = {**(table.schema.metadata or {}), INDEX_KEY: orjson.dumps(record)}
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    return sink.getvalue()


def decode_part(data: bytes) -> tuple[pa.Table, UnitIndex]:
    """Read a part, verifying every page.

    Raises:
        CorruptObjectError: the bytes are not a whole, unchanged part.
    """
    try:
        with pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True) as file:
            table = file.read()
    except Exception as error:  # damaged bytes make pyarrow raise many kinds
        raise CorruptObjectError(f"not a readable part: {type(error).__name__}: {error}") from error
    metadata = dict(table.schema.metadata or {})
    index = _index(metadata, table.num_rows)
    del metadata[INDEX_KEY]
    return table.replace_schema_metadata(metadata or None), index


def decode_index(tail: bytes) -> UnitIndex | int:
    """Read the unit index from a part's last bytes.

    Returns:
        The index; or, where ``tail`` is too short, how many last bytes are needed.

    Raises:
        CorruptObjectError: the bytes are not the end of a part.
    """
    if len(tail) < 8 or tail[-4:] != MAGIC:
        raise CorruptObjectError("not the end of a Parquet file")
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if needed > len(tail):
        return needed
    try:
        # The footer says where columns stand, but is read without them.
        metadata = pq.read_metadata(io.BytesIO(MAGIC + tail[-needed:]))
    except Exception as error:
        raise CorruptObjectError(f"not a readable footer: {type(error).__name__}: {error}") from error
    return _index(metadata.metadata or {}, metadata.num_rows)


def _index(metadata: dict[bytes, bytes], rows: int) -> UnitIndex:
    try:
        record: dict[str, Any] = orjson.loads(metadata[INDEX_KEY])
        for name in ("keys", "digests"):
            record[name] = base64.b64decode(record[name], validate=True)
        for name in ("counts", "replaces"):
            record[name] = tuple(record[name])
        index = UnitIndex(**record)
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptObjectError(f"no unit index: {type(error).__name__}: {error}") from error
    fits = sum(index.counts) == rows and len(index.digests) == rows * KEY_BYTES
    if not fits or len(index.keys) != len(index.counts) * KEY_BYTES:
        raise CorruptObjectError(f"its unit index does not fit its {rows} rows")
    return index


def part_digest(data: bytes) -> str:
    """SHA-256 of the file, in hex."""
    return hashlib.sha256(data).hexdigest()
