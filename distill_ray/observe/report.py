"""The record of a run: made by listening to its events, kept in the cache root, held by the Distiset."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from distill_ray.events import ReplicaUp, RunEvent, RunFinished, RunStarted, StepAdvanced, StepFailed


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
        replicas: replicas that were up.
        seconds: seconds of work, over all replicas.
        input_tokens: tokens that models read in this run.
        output_tokens: tokens that models wrote in this run.
        failures: what went wrong, in words.
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
    replicas: int = 0
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    failures: list[str] = Field(default_factory=list)


class RunReport(BaseModel):
    """What became of a run.

    Attributes:
        run: the run's id.
        pipeline: the pipeline's name.
        cache: URL of the cache root.
        status: ``running``, ``complete``, ``failed`` or ``interrupted``.
        seconds: wall time.
        error: why it did not complete.
        steps: by name.
    """

    model_config = ConfigDict(extra="forbid")

    run: str = ""
    pipeline: str = ""
    cache: str = ""
    status: str = "running"
    seconds: float = 0.0
    error: str = ""
    steps: dict[str, StepReport] = Field(default_factory=dict)

    @property
    def rows_computed(self) -> int:
        """Rows that were made in this run, over all steps."""
        return sum(step.rows_computed for step in self.steps.values())

    def listen(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        if isinstance(event, RunStarted):
            self.run, self.pipeline, self.cache = event.run, event.pipeline, event.cache
            for decided in event.steps:
                hit = decided.decision == "hit"
                self.steps[decided.step] = StepReport(
                    decision=decided.decision,
                    reason=decided.reason,
                    class_name=decided.class_name,
                    function=decided.function,
                    output_key=decided.output_key,
                    rows_out=decided.rows_known if hit else 0,
                    rows_reused=decided.rows_known if hit else 0,
                )
        elif isinstance(event, ReplicaUp):
            self.steps[event.step].replicas += 1
        elif isinstance(event, StepAdvanced):
            step = self.steps[event.step]
            for name, value in vars(event).items():
                if name != "step":
                    setattr(step, name, value)
        elif isinstance(event, StepFailed):
            self.steps[event.step].failures.append(event.message)
        elif isinstance(event, RunFinished):
            self.status, self.seconds, self.error = event.status, event.seconds, event.error
