"""What pyarrow and Ray do to Arrow data with pandas' help, done without: making arrays, pickling tables.

Importing pandas, where it is installed, takes 0.2 s of CPU and 50 MB, in each process that is given rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, Final

import pyarrow as pa


def make_array(values: Sequence[Any], kind: pa.DataType) -> Any:
    """Give an array of values, None among them: what `pa.array` gives.

    Args:
        values: of the one Python type that belongs to ``kind``, or None; text may be given as UTF-8.
        kind: text, boolean, 64-bit integer or float, or lists of one of these; or null, where all are None.

    Raises:
        OverflowError: an integer is beyond 64 bits.
        UnicodeEncodeError: a text has a lone surrogate.
    """
    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    try:
        return _from_buffers(values, kind)
    except OverflowError:  # more than 2 GB of text, too, of which Arrow makes several arrays
        return pa.array(values, kind, from_pandas=False)


def to_stream(table: pa.Table) -> pa.Buffer:
    """Write a table as Arrow does between processes, which Ray's way of pickling it takes longer for."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def from_stream(data: pa.Buffer) -> pa.Table:
    """Give the table that `to_stream` wrote; nothing is copied."""
    return pa.ipc.open_stream(data).read_all()


def _from_buffers(values: Sequence[Any], kind: pa.DataType) -> Any:
    count, gaps, validity = len(values), 0, None
    if None in values:
        present = [value is not None for value in values]
        gaps, validity = count - sum(present), _bits(present)
        blank = type(next((value for value in values if value is not None), _ZEROS.get(kind, ())))()
        values = [blank if value is None else value for value in values]
    if pa.types.is_list(kind):
        buffers = [validity, _offsets(map(len, values))]
        elements = _from_buffers(list(chain.from_iterable(values)), kind.value_type)
        return pa.Array.from_buffers(kind, count, buffers, gaps, children=[elements])
    return pa.Array.from_buffers(kind, count, [validity, *_BUFFERS[kind](values)], gaps)


def _bits(flags: Sequence[bool]) -> Any:
    """One bit each, the lowest one first."""
    digits = bytes(flags).translate(_DIGITS)[::-1]
    return pa.py_buffer(int(digits or b"0", 2).to_bytes(-(-len(flags) // 8), "little"))


def _offsets(lengths: Iterable[int]) -> Any:
    return pa.py_buffer(array("i", accumulate(lengths, initial=0)))


def _text(values: Sequence[Any]) -> list[Any]:
    stream, lengths = pa.BufferOutputStream(), list[int]()
    for start in range(0, len(values), _AT_ONCE):
        texts = values[start : start + _AT_ONCE]
        if type(texts[0]) is str:
            joined = "".join(texts)
            texts = texts if joined.isascii() else list(map(str.encode, texts))
            data = joined.encode() if joined.isascii() else b"".join(texts)
        else:
            data = b"".join(texts)
        lengths += map(len, texts)
        stream.write(data)
    return [_offsets(lengths), stream.getvalue()]


_AT_ONCE: Final = 64
"""Texts that are joined at once: few enough for a processor's cache, since fresh memory is slow."""

_ZEROS: Final[dict[Any, Any]] = {pa.string(): "", pa.bool_(): False, pa.int64(): 0, pa.float64(): 0.0}
_DIGITS: Final = bytes.maketrans(b"\0\1", b"01")

_BUFFERS: Final[dict[Any, Callable[[Sequence[Any]], list[Any]]]] = {
    pa.string(): _text,
    pa.bool_(): lambda values: [_bits(values)],
    pa.int64(): lambda values: [pa.py_buffer(array("q", values))],
    pa.float64(): lambda values: [pa.py_buffer(array("d", values))],
}
"""What holds values of a type, after the bits that say which of them are there."""
