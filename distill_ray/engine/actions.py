"""What the scheduler says is to be done. Each action counts as under way as soon as it was said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from distill_ray.cache.manifest import PartEntry
from distill_ray.engine.messages import StoredPart, Work


@dataclass(frozen=True)
class StartReplica:
    """Create a replica and load it.

    Attributes:
        step: the step's name.
        replica: the replica's number.
        joins: it only puts stored rows together with changed ones: the step is not loaded, and it needs none
            of the step's resources.
        place: the node to put it on, or for each of its bundles, where a place was chosen.
    """

    step: str
    replica: int
    joins: bool = False
    place: tuple[str, ...] = ()


@dataclass(frozen=True)
class SendWork:
    """Call a replica; ``live`` names the blocks to hand over as tables, in order."""

    step: str
    replica: int
    work: Work
    live: tuple[int, ...] = ()


@dataclass(frozen=True)
class ReadKeys:
    """Work out the digests of some columns of a block's rows.

    Attributes:
        step: the row-wise step that asks.
        block: the block.
        columns: the columns.
        source: the part to read; None: the rows are in memory.
        first_row: number of the block's first row in that part.
    """

    step: str
    block: int
    columns: tuple[str, ...]
    source: StoredPart | None
    first_row: int = 0


@dataclass(frozen=True)
class ReadDigests:
    """Read the digests of a part's rows, for a step that has fallen behind.

    Attributes:
        step: the step that asks.
        producer: the step whose rows they are.
        part: the part.
    """

    step: str
    producer: str
    part: PartEntry


@dataclass(frozen=True)
class FindParts:
    """See what a lost replica had written."""

    step: str
    replica: int


@dataclass(frozen=True)
class FlushReplica:
    """Have a replica write all it has."""

    step: str
    replica: int


@dataclass(frozen=True)
class StopReplica:
    """Unload a replica and give its resources back."""

    step: str
    replica: int


@dataclass(frozen=True)
class KillReplica:
    """End a replica's process as it is: something in it does not come back.

    Attributes:
        step: the step's name.
        replica: the replica's number.
        reason: what does not, in words.
    """

    step: str
    replica: int
    reason: str


@dataclass(frozen=True)
class AbandonReplica:
    """End a replica that is not up yet: the rest of its step was done without it."""

    step: str
    replica: int


@dataclass(frozen=True)
class CommitOutput:
    """Write the manifest of a step all of whose rows are stored."""

    step: str


@dataclass(frozen=True)
class AskForNodes:
    """Say what the run lacks a place for: an autoscaler may bring it, and what no node ever had is an error.

    Attributes:
        places: for each bundle of each replica that has no place its step, and what it needs.
    """

    places: tuple[tuple[str, Mapping[str, float]], ...]


@dataclass(frozen=True)
class ReleaseBlocks:
    """Forget these rows in memory: nobody needs them, or they can be read from their parts."""

    blocks: tuple[int, ...]


Action: TypeAlias = (
    StartReplica
    | SendWork
    | ReadKeys
    | ReadDigests
    | FindParts
    | FlushReplica
    | StopReplica
    | KillReplica
    | AbandonReplica
    | CommitOutput
    | AskForNodes
    | ReleaseBlocks
)
