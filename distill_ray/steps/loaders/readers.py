"""How rows are read from one file, by type of file: a stream of dicts, in constant memory."""

from __future__ import annotations

import csv
import io
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from distill_ray import storage
from distill_ray.credentials import shown
from distill_ray.errors import ParameterError
from distill_ray.types import Row

T = TypeVar("T", io.BufferedReader, io.TextIOWrapper)

_CHUNK = 1 << 18
_PARQUET_BATCH = 1024


@dataclass
class Skip:
    """Rows still to be passed over, counted down from file to file."""

    rows: int = 0

    def take(self) -> bool:
        """Whether the row at hand is to be passed over."""
        if self.rows == 0:
            return False
        self.rows -= 1
        return True


class Reader(ABC):
    """Reads one type of file."""

    @abstractmethod
    def read(self, file: Any, url: str, skip: Skip) -> Generator[Row]:
        """Yield the rows of an open file that are not skipped; ``url`` is for messages."""

    def columns_of(self, file: Any, url: str) -> list[str]:
        """Return the columns: those of the first row, unless the file says more."""
        with closing(self.read(file, url, Skip())) as rows:
            return list(next(rows, {}))

    def rows(self, url: str, storage_options: Mapping[str, Any] | None, skip: Skip) -> Generator[Row]:
        """Open the file and yield its rows; the file is closed with the generator."""
        with storage.open_url(url, "rb", storage_options) as file:
            yield from self.read(file, shown(url), skip)

    def columns(self, url: str, storage_options: Mapping[str, Any] | None) -> list[str]:
        """Open the file and return its columns."""
        with storage.open_url(url, "rb", storage_options) as file:
            return self.columns_of(file, shown(url))


class JsonLinesReader(Reader):
    """One JSON object a line; empty lines are passed over."""

    def read(self, file: Any, url: str, skip: Skip) -> Generator[Row]:
        """Yield the rows; a skipped line is not parsed."""
        with _lent(io.BufferedReader(file, _CHUNK)) as lines:
            for number, line in enumerate(lines, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not text.strip() or skip.take():
                    continue
                try:
                    row = json.loads(text)
                except ValueError as error:
                    raise _broken(url, number, error) from error
                yield _object(row, url, number)


class JsonReader(Reader):
    """An array of JSON objects, or objects one after the other; parsed object by object."""

    def read(self, file: Any, url: str, skip: Skip) -> Generator[Row]:
        """Yield the rows."""
        with _lent(_text(file)) as characters:
            yield from self._read(_Text(characters, url), url, skip)

    def _read(self, text: _Text, url: str, skip: Skip) -> Iterator[Row]:
        is_array = text.peek() == "["
        if is_array:
            text.pop()
        expects_comma = False
        while (character := text.peek()) and not (is_array and character == "]"):
            if is_array and expects_comma:
                if text.pop() != ",":
                    raise _broken(url, text.line, ValueError("expected ',' or ']'"))
                expects_comma = False
                continue
            line = text.line
            row = _object(text.value(), url, line)
            expects_comma = True
            if not skip.take():
                yield row
        if is_array and not character:
            raise _broken(url, text.line, ValueError("the array has no end"))


class CsvReader(Reader):
    """A heading and lines of values, in the dialect of spreadsheets; values are texts."""

    def read(self, file: Any, url: str, skip: Skip) -> Generator[Row]:
        """Yield the rows; a value that is missing at the end of a line is None."""
        csv.field_size_limit(sys.maxsize)  # the module's own limit is 128 KiB a value
        with _lent(_text(file)) as text:
            yield from self._read(csv.DictReader(text, strict=True), url, skip)

    def _read(self, lines: csv.DictReader[str], url: str, skip: Skip) -> Iterator[Row]:
        while True:
            try:
                row = next(lines)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                raise _broken(url, lines.line_num, error) from error
            if None in row:
                raise _broken(url, lines.line_num, ValueError(f"more values than the {len(row) - 1} columns"))
            if not skip.take():
                yield row

    def columns_of(self, file: Any, url: str) -> list[str]:
        """Return the heading."""
        del url
        with _lent(_text(file)) as text:
            return list(csv.DictReader(text).fieldnames or [])


class ParquetReader(Reader):
    """Parquet, a row group at a time; row groups that are skipped whole are not read."""

    def read(self, file: Any, url: str, skip: Skip) -> Generator[Row]:
        """Yield the rows."""
        parquet = _open_parquet(file, url)
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if count <= skip.rows:
                skip.rows -= count
                continue
            # No threads of pyarrow's: one that still holds the file could abort a process that ends.
            for batch in parquet.iter_batches(_PARQUET_BATCH, row_groups=[group], use_threads=False):
                start = min(skip.rows, batch.num_rows)
                skip.rows -= start
                yield from batch.slice(start).to_pylist()

    def columns_of(self, file: Any, url: str) -> list[str]:
        """Return the columns of the schema."""
        return list(_open_parquet(file, url).schema_arrow.names)


READERS: Mapping[str, Reader] = {
    "jsonl": JsonLinesReader(),
    "json": JsonReader(),
    "csv": CsvReader(),
    "parquet": ParquetReader(),
}


class _Text:
    """JSON text of which only the part around the value at hand is in memory."""

    def __init__(self, file: io.TextIOWrapper, url: str) -> None:
        self._file = file
        self._decoder = json.JSONDecoder()
        self._url = url
        self._buffer = ""
        self._at = 0
        self._error: ValueError | None = None
        self.line = 1

    def peek(self) -> str:
        """Return the next character that is no white space, or nothing at the end."""
        while True:
            while self._at < len(self._buffer):
                character = self._buffer[self._at]
                if character not in " \t\r\n":
                    return character
                self.line += character == "\n"
                self._at += 1
            if not self._read(_CHUNK):
                return ""

    def pop(self) -> str:
        """Return the next character, and go beyond it."""
        self._at += 1
        return self._buffer[self._at - 1]

    def value(self) -> Any:
        """Parse the value that begins here, reading on until it is complete."""
        wanted = _CHUNK
        while (found := self._complete_value()) is None:
            if not self._read(wanted):
                raise _broken(self._url, self.line, self._error or ValueError("no JSON"))
            wanted *= 2
        value, end = found
        self.line += self._buffer.count("\n", self._at, end)
        self._at = end
        return value

    def _complete_value(self) -> tuple[Any, int] | None:
        try:
            return self._decoder.raw_decode(self._buffer, self._at)
        except json.JSONDecodeError as error:
            self._error = error
            return None

    def _read(self, count: int) -> bool:
        self._buffer = self._buffer[self._at :]
        self._at = 0
        try:
            more = self._file.read(count)
        except UnicodeDecodeError as error:
            raise _broken(self._url, self.line, error) from error
        self._buffer += more
        return bool(more)


def _text(file: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, "utf-8-sig", newline="")


@contextmanager
def _lent(wrapper: T) -> Iterator[T]:
    """Give the wrapper, and take the file out of it after."""
    # A wrapper that dies with an open file complains of it, although the file's opener is about to close it.
    try:
        yield wrapper
    finally:
        wrapper.detach()


def _open_parquet(file: Any, url: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise ParameterError(f"'{url}' is no Parquet file: {error}") from error


def _object(row: Any, url: str, line: int) -> Row:
    if not isinstance(row, dict):
        raise _broken(url, line, ValueError(f"a row must be an object, got {type(row).__name__}"))
    return row


def _broken(url: str, line: int, error: Exception) -> ParameterError:
    return ParameterError(f"'{url}', line {line}: {error}")
