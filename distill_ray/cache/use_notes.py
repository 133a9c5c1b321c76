"""Notes of use: a run that finds everything, as another did earlier that day, writes nothing.

Each run leaves records: which outputs it used, and which steps its pipeline had (`records`, `runs`). Those of
a run that computes nothing say what the ones before said. So a note stands beside the parts of a leaf, whose
names such a run lists anyway: where the note of the day is there, its use is known. It is named by what the
records say, and removed before a run of other steps writes records for a pipeline of the same name: a note
stands only as long as the records say what it stands for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import sha256

import orjson

from distill_ray.cache.paths import NOTE_OPENING, FunctionId
from distill_ray.cache.records import RunRecord

_DAY = len("20260131")  # what a run's id begins with


@dataclass(frozen=True)
class UseNote:
    """A note: an object whose name says all.

    Attributes:
        leaf: the function beside whose parts it stands.
        name: its name there.
    """

    leaf: FunctionId
    name: str

    @property
    def path(self) -> str:
        """Where it stands."""
        return f"{self.leaf.parts_folder}/{self.name}"


def note_of(record: RunRecord | None) -> UseNote | None:
    """The note that stands for what a run leaves; None where there is no such record, or it is damaged."""
    if record is None:
        return None
    try:
        followed = {source for step in record.steps.values() for source in step.predecessors}
        leaf = record.steps[min(record.steps.keys() - followed)].function
        said = {key: value for key, value in record.to_json().items() if key != "run"}
        digest = sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
        day = record.run[:_DAY]
        leaf.parts_folder.encode()  # what a damaged record names has no folder
    except (ValueError, TypeError):
        return None
    return UseNote(leaf, f"{NOTE_OPENING}{day}.{digest}")


def is_past(name: str, now: float) -> bool:
    """Whether a note, by its name or path, is of a day so long ago that no run looks for it any more."""
    day = name.rpartition(NOTE_OPENING)[2][:_DAY]
    return day < time.strftime("%Y%m%d", time.gmtime(now - 24 * 3600))


def is_note(name: str) -> bool:
    """Whether this is the name of a note, among those of parts."""
    return name.startswith(NOTE_OPENING)
