"""What may happen to a file of a cache or of a save."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, position: int | None = None) -> None:
    """Flip a bit of a file, by default in its middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(data)


def cut(path: Path, count: int) -> None:
    """Take so many bytes off the end of a file."""
    path.write_bytes(path.read_bytes()[:-count])
