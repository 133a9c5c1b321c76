"""Where a run stands, put together from its events: what the progress displays show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from distill_ray.events import (
    WORK,
    ReplicaAway,
    ReplicaDown,
    ReplicaUp,
    RunEvent,
    RunFinished,
    RunRepaired,
    RunStarted,
    RunStopping,
    StepAdvanced,
    StepAwaited,
    StepDecided,
    StepFailed,
    StepFinished,
)

RATE_SECONDS = 30.0
"""Rows a second are counted over so many of the last seconds."""

SAMPLE_SECONDS = 0.5


@dataclass
class StepStanding:
    """One step: what the plan said, and what has become of it.

    Attributes:
        decided: what the plan says.
        state: ``waiting``, ``running``, ``done`` or ``failed``; of a step that does not run ``done``.
        advanced: its totals so far.
        before: its totals when the run was planned anew, if it was.
        replicas: replicas that have come up.
        rows_total: rows it is going to take, once that is known.
        failure: what went wrong.
        holder: which other run computes it, in words; empty: none does.
        ended: when it was done or failed, by the clock.
    """

    decided: StepDecided
    state: str
    advanced: StepAdvanced
    replicas: int = 0
    rows_total: int | None = None
    failure: str = ""
    holder: str = ""
    ended: float | None = None
    before: StepAdvanced | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def name(self) -> str:
        """The step's name."""
        return self.decided.step

    @property
    def rows_done(self) -> int:
        """Rows that are behind it: rows it took, or, where nothing flows into it, rows it gave."""
        return self.advanced.rows_in if self.decided.predecessors else self.advanced.rows_out

    def advance(self, totals: StepAdvanced) -> None:
        """Take in its totals since the run was planned, which was perhaps not for the first time."""
        self.advanced = totals
        if self.before is not None:
            done = {name: getattr(totals, name) + getattr(self.before, name) for name in WORK}
            self.advanced = replace(totals, **done)

    def sample(self, now: float) -> None:
        """Remember what is computed by now, for `rate`."""
        if self._samples and now - self._samples[-1][0] < SAMPLE_SECONDS:
            return
        self._samples.append((now, self.advanced.rows_computed))
        while now - self._samples[0][0] > RATE_SECONDS:
            self._samples.popleft()

    def rate(self, now: float) -> float | None:
        """Rows computed a second, lately; None where there is nothing to tell it from."""
        until = now if self.ended is None else self.ended
        if not self._samples or until - self._samples[0][0] < SAMPLE_SECONDS:
            return None
        since, rows = self._samples[0]
        return (self.advanced.rows_computed - rows) / (until - since)


class RunStanding:
    """Listens to a run; cheap enough for thousands of events a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.started = RunStarted("", "", "", ())
        self.finished: RunFinished | None = None
        self.stopping: RunStopping | None = None
        self.steps: dict[str, StepStanding] = {}

    @property
    def complete_hit(self) -> bool:
        """Whether nothing has to run."""
        return not any(step.decided.runs for step in self.steps.values())

    def listen(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        if isinstance(event, StepAdvanced):
            step = self.steps[event.step]
            step.advance(event)
            step.sample(self._clock())
        elif isinstance(event, RunStarted | RunRepaired):
            self._plan(event)
        elif isinstance(event, ReplicaUp | ReplicaDown | ReplicaAway):
            self._count_replicas(event)
        elif isinstance(event, StepAwaited):
            self.steps[event.step].holder = event.holder
        elif isinstance(event, StepFinished):
            self._end(event.step, "done")
            self._tell_totals()
        elif isinstance(event, StepFailed):
            self._end(event.step, "failed")
            self.steps[event.step].failure = event.message
        elif isinstance(event, RunStopping):
            self.stopping = event
        elif isinstance(event, RunFinished):
            self.finished = event

    def _count_replicas(self, event: ReplicaUp | ReplicaDown | ReplicaAway) -> None:
        step = self.steps[event.step]
        if isinstance(event, ReplicaUp):
            step.replicas += 1
            step.state = "running"
            step.sample(self._clock())
        else:
            step.replicas -= isinstance(event, ReplicaAway) or event.loaded

    def _plan(self, event: RunStarted | RunRepaired) -> None:
        before, self.steps = self.steps, {decided.step: _standing(decided) for decided in event.steps}
        if isinstance(event, RunStarted):
            self.started = event
        else:
            for name, step in self.steps.items():
                step.before = before[name].advanced
                step.advance(step.advanced)
        self._tell_totals()

    def _end(self, name: str, state: str) -> None:
        self.steps[name].state = state
        self.steps[name].ended = self._clock()

    def _tell_totals(self) -> None:
        """A step that has ended has given all that those after it are going to take."""
        for step in self.steps.values():
            before = [self.steps[name] for name in step.decided.predecessors]
            if step.decided.runs and before and all(each.state == "done" for each in before):
                step.rows_total = before[0].advanced.rows_out


def _standing(decided: StepDecided) -> StepStanding:
    known = decided.rows_known if decided.decision == "hit" else 0
    nothing = StepAdvanced(decided.step, rows_out=known, rows_reused=known)
    return StepStanding(decided, "waiting" if decided.runs else "done", nothing)
