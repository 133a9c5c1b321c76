"""Guards a run: it shows that it lives, and takes leases so that no other run computes the same meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.exclusive import creates_exclusively
from distill_ray.cache.heartbeat import BEAT_SECONDS, MAX_BEAT_SECONDS, Beat, Heartbeat
from distill_ray.cache.lease import Busy, Leases
from distill_ray.engine.single_flight import SingleFlight
from distill_ray.errors import ParameterError, StepError
from distill_ray.events import Listener, RunEvent, RunUnguarded, StepAdvanced, StepFailed
from distill_ray.plan import Plan, is_outdated

OnBusy: TypeAlias = Literal["wait", "compute", "fail"]

BEAT_VARIABLE = "DISTILL_RAY_BEAT_SECONDS"


@dataclass(frozen=True)
class Guard:
    """What guards one run.

    Attributes:
        run: the run's id.
        catalog: its cache root.
        on_busy: what to do about steps that another run computes.
        heartbeat: the run's; None: nothing has to run.
        flight: the run's leases; None: there are none.
        followed: others hold some of what must run, or held it and came to no end: what they stored until
            now is to be looked for.
    """

    run: str
    catalog: StoreCatalog
    on_busy: OnBusy
    heartbeat: Heartbeat | None = None
    flight: SingleFlight | None = None
    followed: bool = False

    def may_change(self, plan: Plan) -> bool:
        """Whether a plan made before the leases were taken may know too little by now."""
        return self.flight is not None and (self.followed or is_outdated(plan, self.catalog))

    def listen(self, event: RunEvent) -> None:
        """Take in an event of the run: the heartbeat says how far its steps are."""
        if self.heartbeat is not None and isinstance(event, StepAdvanced):
            self.heartbeat.advance(event.step, event.rows_out)

    def take_leases(self, plan: Plan, emit: Listener) -> None:
        """Take the leases of what must run.

        Raises:
            StepError: another run computes a step, and `on_busy` is ``"fail"``.
        """
        if self.flight is None:
            if self.heartbeat is not None and not plan.complete:
                emit(RunUnguarded(_UNGUARDED))
            return
        self.flight.take(_to_compute(plan))
        for step in plan.steps:
            if step.decision == "hit":  # another run was about to finish when this one began
                self.flight.written(step.output_key)
        if self.on_busy == "compute":
            self.flight.busy.clear()
        elif self.on_busy == "fail":
            _refuse(plan, self.flight.busy, emit)
        else:
            steps = _to_compute(plan)
            self.flight.wait({key: steps[key] for key in self.flight.busy})


_UNGUARDED = (
    "this cache root cannot create an object only where there is none: another run of the same steps that "
    "is started now computes them too"
)


@contextmanager
def guarded(on_busy: OnBusy, catalog: StoreCatalog, plan: Plan, run: str) -> Iterator[Guard]:
    """Guard a run until its end, where the plan says that something must run.

    The leases are taken at once; what other runs stored until then may make a new plan smaller.
    """
    if plan.complete:
        yield Guard(run, catalog, on_busy)
        return
    storage = catalog.store.own
    seconds = beat_seconds()
    first = Beat(
        run=run,
        pipeline=plan.pipeline,
        outputs=tuple(step.output_key for step in plan.steps),
        functions=tuple(step.function.signature for step in plan.steps),
        beat_seconds=seconds,
    )
    heartbeat = Heartbeat(storage, first)
    heartbeat.start()
    flight, followed = None, False
    try:
        if creates_exclusively(storage):
            leases = Leases(storage, run, seconds)
            flight = SingleFlight(catalog, leases, seconds)
            flight.take(_to_compute(plan))
            followed = leases.followed
        yield Guard(run, catalog, on_busy, heartbeat, flight, followed)
    finally:
        if flight is not None:
            flight.leave()
        heartbeat.end()


def beat_seconds() -> float:
    """Seconds between two beats: the default, or those of ``DISTILL_RAY_BEAT_SECONDS``."""
    given = os.environ.get(BEAT_VARIABLE)
    try:
        seconds = float(given) if given else BEAT_SECONDS
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MAX_BEAT_SECONDS:
        raise ParameterError(
            f"{BEAT_VARIABLE} must be a number of seconds, {MAX_BEAT_SECONDS:.0f} at most, not {given!r}."
        )
    return seconds


def _to_compute(plan: Plan) -> dict[str, str]:
    """``{output key: step}`` of the steps that run; forced ones are computed whatever others do."""
    return {step.output_key: step.name for step in plan.steps if step.decision in ("resume", "compute")}


def _refuse(plan: Plan, busy: Mapping[str, Busy], emit: Listener) -> None:
    for step in plan.steps:
        if step.runs and step.output_key in busy:
            message = (
                f"another run computes it: {busy[step.output_key].holder}. Wait for that run, or let this "
                'one do so (on_busy="wait"); on_busy="compute" would compute it a second time.'
            )
            emit(StepFailed(step.name, message, None))
            raise StepError(step.name, message)
