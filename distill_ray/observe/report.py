"""The record of a run: made by listening to its events, kept in the cache root, held by the Distiset."""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from distill_ray.events import (
    WORK,
    DamageFound,
    Divergent,
    ReplicaDown,
    ReplicaUp,
    RowsFailed,
    RunEvent,
    RunFinished,
    RunRepaired,
    RunStarted,
    RunUnguarded,
    StepAdvanced,
    StepAwaited,
    StepDecided,
    StepFailed,
)

FAILURES = 1_000
"""Failures of a step that are told in words; how many rows failed is counted in any case."""


class StepReport(BaseModel):
    """What became of one step.

    Attributes:
        decision: ``hit``, ``resume``, ``compute``, ``forced`` or ``not needed``.
        reason: why, in words.
        class_name: the class of the step.
        function: signature of the step function that its output is stored under.
        output_key: what names its output.
        rows_in: rows it took.
        rows_out: rows it gave.
        rows_reused: rows out that were stored before.
        rows_computed: rows out that were made in this run.
        batches_computed: batches that were made in this run.
        rows_failed: input rows that the step could not do and went on without.
        rows_retried: rows that were tried again after errors that may pass, once for each try.
        rows_checked: stored rows that were computed again to compare.
        rows_differing: how many of them came out differently.
        replicas: replicas that were up.
        replicas_lost: replicas that died, with their process or their node.
        seconds: seconds of work, over all replicas.
        input_tokens: tokens that models read in this run.
        output_tokens: tokens that models wrote in this run.
        failures: what went wrong, in words; after `FAILURES` of them one line says how many more there were.
        waited_for: the other run that computed it, and how far that was when it was last seen, in words.
        divergent: digests of the rows that another run made of the same, and of those that this run made.
    """

    model_config = ConfigDict(extra="forbid")

    decision: str
    reason: str
    class_name: str = ""
    function: str = ""
    output_key: str = ""
    rows_in: int = 0
    rows_out: int = 0
    rows_reused: int = 0
    rows_computed: int = 0
    batches_computed: int = 0
    rows_failed: int = 0
    rows_retried: int = 0
    rows_checked: int = 0
    rows_differing: int = 0
    replicas: int = 0
    replicas_lost: int = 0
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    failures: list[str] = Field(default_factory=list)
    waited_for: str = ""
    divergent: str = ""


class RunReport(BaseModel):
    """What became of a run.

    Attributes:
        run: the run's id.
        pipeline: the pipeline's name.
        cache: URL of the cache root.
        status: ``running``, ``complete``, ``failed`` or ``interrupted``.
        seconds: wall time.
        error: why it did not complete.
        unguarded: why other runs may have computed the same at the same time; empty: they have not.
        repairs: stored rows that were found gone or damaged, and computed again.
        steps: by name.
    """

    model_config = ConfigDict(extra="forbid")

    run: str = ""
    pipeline: str = ""
    cache: str = ""
    status: str = "running"
    seconds: float = 0.0
    error: str = ""
    unguarded: str = ""
    repairs: list[str] = Field(default_factory=list)
    steps: dict[str, StepReport] = Field(default_factory=dict)
    _done_before: dict[str, StepReport] = PrivateAttr(default_factory=dict)
    _failures_untold: Counter[str] = PrivateAttr(default_factory=Counter)

    @property
    def rows_computed(self) -> int:
        """Rows that were made in this run, over all steps."""
        return sum(step.rows_computed for step in self.steps.values())

    def listen(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        if isinstance(event, RunStarted):
            self.run, self.pipeline, self.cache = event.run, event.pipeline, event.cache
            self.steps = {decided.step: _undone(decided) for decided in event.steps}
        elif isinstance(event, DamageFound):
            self.repairs.append(event.reason)
        elif isinstance(event, RunRepaired):
            self._done_before = self.steps
            self.steps = {
                decided.step: _undone(decided).model_copy(
                    update={name: getattr(self.steps[decided.step], name) for name in (*WORK, "failures")}
                )
                for decided in event.steps
            }
        elif isinstance(event, RunUnguarded):
            self.unguarded = event.reason
        elif isinstance(event, RunFinished):
            self.status, self.seconds, self.error = event.status, event.seconds, event.error
        else:
            self._listen_to_step(event)

    def _listen_to_step(self, event: RunEvent) -> None:
        if isinstance(event, ReplicaUp):
            self.steps[event.step].replicas += 1
        elif isinstance(event, ReplicaDown):
            self.steps[event.step].replicas_lost += 1
        elif isinstance(event, StepAdvanced):
            self._advance(event)
        elif isinstance(event, StepAwaited):
            self.steps[event.step].waited_for = event.holder or self.steps[event.step].waited_for
        elif isinstance(event, StepFailed):
            self._note_failure(event.step, event.message)
        elif isinstance(event, RowsFailed):
            self._note_failure(event.step, f"{_rows(event)}: {event.message}")
        elif isinstance(event, Divergent):
            self.steps[event.step].divergent = f"kept {event.kept} of run {event.kept_of}, made {event.made}"

    def _note_failure(self, step: str, text: str) -> None:
        failures = self.steps[step].failures
        if len(failures) < FAILURES:
            failures.append(text)
            return
        self._failures_untold[step] += 1
        failures[FAILURES:] = [f"and {self._failures_untold[step]:,} more"]

    def _advance(self, event: StepAdvanced) -> None:
        step, before = self.steps[event.step], self._done_before.get(event.step)
        for name, value in vars(event).items():
            if name != "step":
                done = getattr(before, name) if before is not None and name in WORK else 0
                setattr(step, name, value + done)


def _undone(decided: StepDecided) -> StepReport:
    """The report of a step that has done nothing yet."""
    hit = decided.decision == "hit"
    return StepReport(
        decision=decided.decision,
        reason=decided.reason,
        class_name=decided.class_name,
        function=decided.function,
        output_key=decided.output_key,
        rows_out=decided.rows_known if hit else 0,
        rows_reused=decided.rows_known if hit else 0,
    )


def _rows(failed: RowsFailed) -> str:
    if failed.rows == 1:
        return f"input row {failed.first_row}"
    return f"input rows {failed.first_row} to {failed.first_row + failed.rows - 1}"
