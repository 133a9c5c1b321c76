"""What a collection has condemned and not yet removed: records in the root, so that a later one goes on."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from distill_ray.cache import paths
from distill_ray.cache.gc import Condemned
from distill_ray.cache.paths import FunctionId
from distill_ray.storage import Storage

_T = TypeVar("_T")

CHUNK = 10_000
"""Names in one record: what a sweep holds in memory."""


class Parts(BaseModel, frozen=True):
    """Parts of one function.

    Attributes:
        place: the root they stand in.
        class_name: the function's class.
        signature: its signature.
        sizes: bytes of each part, by name.
    """

    place: str
    class_name: str
    signature: str
    sizes: dict[str, int]

    @property
    def function(self) -> FunctionId:
        """Whose they are."""
        return FunctionId(self.class_name, self.signature)


class Clutter(BaseModel, frozen=True):
    """Something that is neither a part nor a manifest.

    Attributes:
        kind: ``leftover`` of a write that was cut off, ``lease``, ``heartbeat``, or ``root`` of another salt.
        place: the root it stands in.
        path: where it stands there.
        size: its bytes.
        run: the run it is of.
    """

    kind: Literal["leftover", "lease", "heartbeat", "root"]
    place: str
    path: str
    size: int = 0
    run: str = ""


class Record(BaseModel, frozen=True):
    """What was condemned at one time.

    Attributes:
        name: the record's own name.
        at: seconds since 1970, by the clock of who condemned it.
        grace: seconds after which it may be removed.
        parts: parts that no manifest named.
        clutter: what else is to go.
    """

    name: str
    at: float
    grace: Annotated[float, Field(ge=0)]
    parts: tuple[Parts, ...] = ()
    clutter: tuple[Clutter, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all that is in it."""
        parts = sum(sum(each.sizes.values()) for each in self.parts)
        return parts + sum(each.size for each in self.clutter)

    def write(self, storage: Storage) -> None:
        """Write it into the root, in place of what stands there under its name."""
        storage.publish(paths.condemned_record(self.name), self.model_dump_json().encode())


def make_records(
    parts: Iterable[Condemned], clutter: Sequence[Clutter], at: float, grace: float
) -> Iterator[Record]:
    """Give records that hold these together, each of a size that fits into memory easily."""
    collection = secrets.token_hex(8)
    number = 0
    for some in _chunks(list(parts)):
        number += 1
        yield Record(name=f"{collection}-{number:05d}", at=at, grace=grace, parts=_by_function(some))
    for others in _chunks(clutter):
        number += 1
        yield Record(name=f"{collection}-{number:05d}", at=at, grace=grace, clutter=tuple(others))


def record_names(storage: Storage) -> list[str]:
    """Names of the records that stand in a root."""
    found = storage.sizes(paths.CONDEMNED_FOLDER)
    return sorted(
        name.removesuffix(paths.RECORD_ENDING) for name in found if name.endswith(paths.RECORD_ENDING)
    )


def read_condemned(storage: Storage, name: str) -> Record | None:
    """Read a record; None where it is gone, or is none: what it named is garbage to the next collection."""
    try:
        return Record.model_validate_json(storage.read(paths.condemned_record(name)))
    except (FileNotFoundError, ValidationError):
        return None


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _by_function(condemned: Iterable[Condemned]) -> tuple[Parts, ...]:
    sizes: dict[tuple[str, FunctionId], dict[str, int]] = defaultdict(dict)
    for each in condemned:
        sizes[each.place, each.function][each.name] = each.size
    return tuple(
        Parts(place=place, class_name=function.class_name, signature=function.signature, sizes=names)
        for (place, function), names in sizes.items()
    )
