"""What a data set's rows are read from: tables that come one at a time, from a cache, from a save, or held.

Every table is in the form of `distill_ray.cache.rows`: `decode_rows` gives its rows exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from distill_ray.cache.manifest import Manifest
from distill_ray.cache.store import CacheStore, read_footer
from distill_ray.errors import CorruptObjectError, StorageError
from distill_ray.storage import Storage


class Parts(Protocol):
    """Numbered tables of rows."""

    @property
    def size(self) -> int:
        """Bytes of all parts as they are stored."""

    def read(self, part: int) -> pa.Table:
        """Read a part whole.

        Raises:
            StorageError: it cannot be read; names the leaf and the part, and says what to do.
        """

    def schema(self, part: int) -> tuple[pa.Schema, int]:
        """Give a part's columns and its row count, without reading its rows; raises what `read` raises."""


@dataclass(frozen=True)
class CachedParts:
    """The parts that an output in the cache rests on."""

    store: CacheStore
    manifest: Manifest
    leaf: str

    @property
    def size(self) -> int:
        """See `Parts.size`."""
        return sum(part.size for part in self.manifest.parts)

    def read(self, part: int) -> pa.Table:
        """See `Parts.read`; a part that is not what was written is removed."""
        try:
            return self.store.read_part(self.manifest.function, self.manifest.parts[part].name)[0]
        except StorageError as error:
            remedy = " Run again: its rows will be computed again." * isinstance(error, CorruptObjectError)
            raise type(error)(f"The rows of leaf '{self.leaf}' cannot be read. {error}{remedy}") from error

    def schema(self, part: int) -> tuple[pa.Schema, int]:
        """See `Parts.schema`."""
        try:
            footer = self.store.read_footer(self.manifest.function, self.manifest.parts[part])
        except StorageError:
            table = self.read(part)  # says what is wrong with it, if it still is
            return table.schema, table.num_rows
        return _parse_footer(footer)


@dataclass(frozen=True)
class SavedFile:
    """One Parquet file of a save.

    Attributes:
        path: relative to the save's folder.
        rows: number of rows.
        size: bytes of the file.
        sha256: digest of the file's content, in hexadecimal digits.
    """

    path: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class SavedParts:
    """The files that `Distiset.save_to_disk` wrote for one split."""

    storage: Storage
    files: Sequence[SavedFile]
    leaf: str

    @property
    def size(self) -> int:
        """See `Parts.size`."""
        return sum(file.size for file in self.files)

    def read(self, part: int) -> pa.Table:
        """See `Parts.read`."""
        file = self.files[part]
        data = self._checked(file, lambda: self.storage.read(file.path))
        if sha256(data).hexdigest() != file.sha256:
            raise self._explained(file, CorruptObjectError("its content is not what was written"))
        # On this thread, as the cache's parts: see `decode_part`.
        return pq.read_table(pa.BufferReader(data), use_threads=False).replace_schema_metadata(None)

    def schema(self, part: int) -> tuple[pa.Schema, int]:
        """See `Parts.schema`."""
        file = self.files[part]
        footer = self._checked(file, lambda: read_footer(self.storage, file.path, file.size))
        try:
            return _parse_footer(footer)
        except (pa.ArrowException, OSError) as error:
            raise self._explained(file, CorruptObjectError(f"its footer is damaged: {error}")) from error

    def _checked(self, file: SavedFile, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except FileNotFoundError as error:
            raise self._explained(file, CorruptObjectError("it is gone")) from error
        except StorageError as error:
            raise self._explained(file, error) from error

    def _explained(self, file: SavedFile, error: StorageError) -> StorageError:
        what = f"Leaf '{self.leaf}': {self.storage.url}/{file.path} cannot be read: {error}."
        if isinstance(error, CorruptObjectError):
            return CorruptObjectError(f"{what} Save the Distiset again, from the run that made it.")
        return StorageError(f"{what} Read again once {self.storage.url} answers; nothing is lost.")


@dataclass(frozen=True)
class HeldParts:
    """Tables in memory."""

    tables: Sequence[pa.Table]

    @property
    def size(self) -> int:
        """See `Parts.size`."""
        return sum(table.nbytes for table in self.tables)

    def read(self, part: int) -> pa.Table:
        """See `Parts.read`."""
        return self.tables[part]

    def schema(self, part: int) -> tuple[pa.Schema, int]:
        """See `Parts.schema`."""
        return self.tables[part].schema, self.tables[part].num_rows


def _parse_footer(footer: bytes) -> tuple[pa.Schema, int]:
    metadata = pq.read_metadata(pa.BufferReader(footer))
    return metadata.schema.to_arrow_schema().remove_metadata(), metadata.num_rows
