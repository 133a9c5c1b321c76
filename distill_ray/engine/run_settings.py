"""How a run is carried out, whatever it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from distill_ray.cache.writer import WriterSettings
from distill_ray.engine.single_flight import SingleFlight


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out, whatever it computes.

    Attributes:
        run: the run's id.
        writer: when parts are cut.
        max_batches: batches of each generator after which it counts as ended; 0 is no limit.
        check_share: share of the reused units that are computed again to compare.
        flight: the run's leases; None: it computes whatever others do.
        stages: for each step the number of its stage: it begins when all of lower numbers have ended.
    """

    run: str
    writer: WriterSettings = field(default_factory=WriterSettings)
    max_batches: int = 0
    check_share: float = 0.0
    flight: SingleFlight | None = None
    stages: Mapping[str, int] = field(default_factory=dict)
