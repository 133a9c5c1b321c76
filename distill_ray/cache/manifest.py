"""A manifest: the ordered list of segments that make up one complete output. Written last, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import orjson

from distill_ray.cache.paths import FORMAT_VERSION, FunctionId, is_safe_name
from distill_ray.errors import CorruptObjectError


@dataclass(frozen=True)
class PartEntry:
    """A part that an output rests on.

    Attributes:
        name: the part's name in its function's folder; it ends with a digest of function and content.
        size: bytes of the file.
    """

    name: str
    size: int


@dataclass(frozen=True)
class Segment:
    """Rows of one part, in the place they have in the output.

    Attributes:
        part: position in the manifest's list of parts.
        first_row: first row within the part.
        rows: number of rows.
    """

    part: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """One complete output of a step function.

    Attributes:
        function: the step function that made it.
        output_key: what it was made from.
        rows: number of rows.
        content: digest of all rows in their order.
        parts: the parts it rests on.
        segments: the rows, in order.
        lineage: ``{output key: content digest}`` of this output and of everything it was made from; and where
            batches were routed to, by what names the routing.
        run: the run that wrote it.
        seconds: seconds of computing that its rows took, over all replicas.
        input_tokens: tokens that models read for it.
        output_tokens: tokens that models wrote for it.
    """

    function: FunctionId
    output_key: str
    rows: int
    content: str
    parts: tuple[PartEntry, ...]
    segments: tuple[Segment, ...]
    lineage: Mapping[str, str]
    run: str = ""
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    format: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """Write it as JSON that begins with the digest of all that follows."""
        record = asdict(self)
        record["segments"] = [[s.part, s.first_row, s.rows] for s in self.segments]
        body = orjson.dumps(record)[1:]
        return _OPENING % sha256(body).hexdigest().encode() + body

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Read a manifest back.

        Raises:
            CorruptObjectError: the text is no manifest, is not what was written, or contradicts itself.
        """
        body = data[_OPENING_SIZE:]
        if data[:_OPENING_SIZE] != _OPENING % sha256(body).hexdigest().encode():
            raise CorruptObjectError(f"{where} is not a manifest as it was written: the checksum differs.")
        try:
            record: dict[str, Any] = orjson.loads(b"{" + body)
            record["function"] = FunctionId(**record["function"])
            record["parts"] = tuple(PartEntry(**part) for part in record["parts"])
            record["segments"] = tuple(Segment(*segment) for segment in record["segments"])
            manifest = cls(**record)
            problem = _problem(manifest)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptObjectError(f"{where} is not a manifest: {error}") from error
        if problem:
            raise CorruptObjectError(f"{where} is not a manifest: {problem}.")
        return manifest


_OPENING = b'{"checksum":"%s",'
_OPENING_SIZE = len(_OPENING) - len(b"%s") + 64


def _problem(manifest: Manifest) -> str | None:
    """Say in what a manifest contradicts itself."""
    if manifest.format != FORMAT_VERSION:
        return f"its format is {manifest.format!r}, this version reads {FORMAT_VERSION}"
    if any(not is_safe_name(part.name) or part.size < 0 for part in manifest.parts):
        return "a part's name or size is not one that a part can have"
    if any(s.part not in range(len(manifest.parts)) for s in manifest.segments):
        return "a segment names a part that the manifest lacks"
    if any(s.first_row < 0 or s.rows < 0 for s in manifest.segments):
        return "a segment begins before its part, or is less than empty"
    if sum(s.rows for s in manifest.segments) != manifest.rows:
        return f"its segments do not add up to its {manifest.rows} rows"
    return None


def merge_segments(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Join neighbours that continue each other; leave out empty ones."""
    merged: list[Segment] = []
    for segment in segments:
        last = merged[-1] if merged else None
        if segment.rows == 0:
            continue
        if last and last.part == segment.part and last.first_row + last.rows == segment.first_row:
            merged[-1] = Segment(last.part, last.first_row, last.rows + segment.rows)
        else:
            merged.append(segment)
    return tuple(merged)
