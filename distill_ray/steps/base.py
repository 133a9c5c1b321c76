"""What a step is: a pydantic model of its parameters, and how it is connected and processed.

A step knows nothing of cache, engine or pipeline. A pipeline makes itself known to the steps that are
created inside its ``with`` block through `ACTIVE_REGISTRY`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

from pydantic import ConfigDict, Field

from distill_ray.declaration import Declaration
from distill_ray.errors import GraphError, ParameterError, TransientError
from distill_ray.resources import StepResources
from distill_ray.steps.marks import is_runtime_parameter
from distill_ray.steps.routing import RoutingBatchFunction
from distill_ray.steps.tokens import metadata_tokens
from distill_ray.types import Row, RuntimeParameter, StepColumns, Unsigned

DEFAULT_BATCH_SIZE = 50

StepT = TypeVar("StepT", bound="BaseStep")

StepKind: TypeAlias = Literal["generator", "step", "global"]

OnError: TypeAlias = Literal["raise", "skip", "null"]


class StepRegistry(Protocol):
    """What a step needs of the pipeline it belongs to."""

    def add_step(self, step: BaseStep) -> None:
        """Take the step in, giving it a name if it has none."""

    def connect_steps(
        self, upstream: BaseStep, *downstream: BaseStep, routing: RoutingBatchFunction | None = None
    ) -> None:
        """Let the output of ``upstream`` flow into the others, or each batch into those that are chosen."""


ACTIVE_REGISTRY: ContextVar[StepRegistry | None] = ContextVar("distill_ray_active_pipeline", default=None)


def label_of(step: BaseStep) -> str:
    """The step's name, or its class where it has none yet: for messages.

    No property of the step, so that users may have a field ``label``.
    """
    return step.name or type(step).__name__


def kind_of(step: BaseStep) -> StepKind:
    """Whether a step makes rows, is given them batch by batch, or all at once."""
    return "generator" if step.is_generator else "global" if step.is_global else "step"


def detached(step: StepT, name: str) -> StepT:
    """Return a copy of a step that knows its name but not its pipeline, for those who run it.

    What it gathers in lists, dicts and sets of its private attributes is its own, in this process too.
    """
    other = step.model_copy()
    for attribute, value in (other.__pydantic_private__ or {}).items():
        if type(value) in (list, dict, set):
            setattr(other, attribute, value.copy())
    other.__dict__["pipeline"] = None
    other.__dict__["name"] = name
    return other


def is_row_wise(step: BaseStep) -> bool:
    """Whether the step's units are rows."""
    return isinstance(step, Step) and step.row_wise and not step.is_global


def batches_at_once_of(step: BaseStep) -> int:
    """How many batches each replica of a step may work on at once; a generator's rows come one by one.

    Raises:
        ParameterError: the step says something else than a number.
    """
    if not isinstance(step, Step):
        return 1
    at_once: Any = step.batches_at_once
    if isinstance(at_once, int) and at_once >= 1:
        return at_once
    raise ParameterError(
        f"Step '{label_of(step)}': `batches_at_once` must be a number, at least 1, not {at_once!r:.200}."
    )


def snake_case(class_name: str) -> str:
    """``TextGeneration`` -> ``text_generation``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


class BaseStep(Declaration):
    """What every step has, whether it makes rows or transforms them.

    Attributes:
        name: unique in its pipeline; inferred from the class where not given (``text_generation_0``).
        resources: replicas, and what each of them needs. Never part of the signature.
        input_mappings: ``{name in this step: column of the rows}``.
        output_mappings: ``{name in this step: column of the rows}``.
        use_cache: False computes this step, and all below it, anew.
        exclude_from_signature: names of parameters and private attributes that do not change what the step
            computes.

    A class may set ``version``: it then stands for the class's code in the signature, in place of the
    fingerprint of its source. A class made by ``@step`` has the user's ``function``, whose source counts.

    A parameter annotated ``RuntimeParameter[...]`` with no default, or with None, is None until a run gives
    it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, validate_default=True)

    version: ClassVar[str | None] = None
    function: ClassVar[Callable[..., Any] | None] = None

    name: Unsigned[str | None] = Field(default=None, pattern=r"^[^\x00-\x1f]{1,200}$")
    resources: Unsigned[StepResources] = Field(default_factory=StepResources)
    input_mappings: dict[str, str] = Field(default_factory=dict)
    output_mappings: dict[str, str] = Field(default_factory=dict)
    use_cache: Unsigned[bool] = True
    exclude_from_signature: Unsigned[frozenset[str]] = frozenset()
    pipeline: Unsigned[Any] = Field(default=None, exclude=True, repr=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let runtime parameters without a default wait for the run that gives them."""
        fields = [field for field in cls.model_fields.values() if is_runtime_parameter(field)]
        without = [field for field in fields if field.is_required() or field.default is None]
        waiting = [field for field in without if field.validate_default is not False]
        for field in waiting:
            field.default, field.validate_default = None, False
        if waiting:
            cls.model_rebuild(force=True)
        super().__pydantic_init_subclass__(**kwargs)

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        # Last, so that no pipeline is left with a step whose parameters were refused.
        registry = ACTIVE_REGISTRY.get() if self.pipeline is None else self.pipeline
        if registry is not None:
            registry.add_step(self)

    def bind(self, registry: StepRegistry, name: str) -> None:
        """Remember the pipeline that took this step in and the name it has there."""
        self.__dict__["pipeline"] = registry
        self.__dict__["name"] = name

    @property
    def inputs(self) -> StepColumns:
        """Columns that the step reads."""
        return []

    @property
    def outputs(self) -> StepColumns:
        """Columns that the step adds or makes."""
        return []

    @property
    def is_generator(self) -> bool:
        """Whether the step makes rows from nothing."""
        return False

    @property
    def is_global(self) -> bool:
        """Whether the step is given all its rows at once."""
        return False

    def signed_state(self) -> dict[str, Any]:
        """Return what else identifies the step's result, such as the content of the files it reads."""
        return {}

    def tokens_of(self, rows: Sequence[Row]) -> tuple[int, int]:
        """Return the tokens that this step's model read and wrote for rows: by default what they say."""
        return metadata_tokens(label_of(self), rows)

    def load(self) -> None:
        """Get ready, once in each replica: load models, open connections."""

    def unload(self) -> None:
        """Give back what `load` took, once in each replica."""

    def connect(self, *steps: BaseStep, routing_batch_function: RoutingBatchFunction | None = None) -> None:
        """Let this step's output flow into each of ``steps``, or each batch into those that are chosen."""
        if self.pipeline is None:
            raise GraphError(
                f"Step '{label_of(self)}' is in no pipeline: create it inside "
                "`with Pipeline(...) as pipeline:` or pass `pipeline=`."
            )
        if not isinstance(routing_batch_function, RoutingBatchFunction | None):
            raise GraphError(
                f"Step '{label_of(self)}': batches are routed by what `@routing_batch_function()` or "
                f"`sample_n_steps(n)` makes, got {routing_batch_function!r:.200}."
            )
        self.pipeline.connect_steps(self, *_as_steps(steps), routing=routing_batch_function)

    def __rshift__(self, other: Any) -> Any:
        """``a >> b`` and ``a >> [b, c]``; gives back the right-hand side, so that it can go on.

        ``a >> routing >> [b, c]`` sends each batch of rows to those that `routing_batch_function` chooses.
        """
        if isinstance(other, RoutingBatchFunction):
            return other.after(self)
        self.connect(*_as_steps(other))
        return other

    def __rrshift__(self, other: Sequence[BaseStep]) -> BaseStep:
        """``[a, b] >> c``."""
        for step in _as_steps(other):
            step.connect(self)
        return self


def _as_steps(other: Any) -> Sequence[BaseStep]:
    steps = other if isinstance(other, list | tuple) else [other]
    for step in steps:
        if not isinstance(step, BaseStep):
            raise GraphError(f"Only steps can be connected, got {step!r:.200}.{_instead(step)}")
    return steps


def _instead(other: Any) -> str:
    if isinstance(other, type):
        return f" Make a step of it: `{other.__name__}(...)`."
    if callable(other):
        return " A function that routes batches wants `@routing_batch_function()` above it."
    return ""


class Step(BaseStep):
    """Transforms rows batch by batch: ``process`` is given a list of rows and yields lists of rows.

    With several predecessors ``process(self, *inputs)`` is given one list for each, aligned by row, in
    the order in which they were connected.

    A class sets ``row_wise = True`` to promise that what it gives for a row depends on that row alone, and
    on no other columns than those that ``inputs`` declares. Such a step is handed only these columns of its
    first predecessor's rows; the others are joined on afterwards. Its rows are stored and found again one by
    one, whatever batches they come in. Which output belongs to which row is known where ``process`` yields
    a list for each row of the batch, or one row for each row, in their order, or only some of the very dicts
    it was given. It must yield nothing else: an empty list after the last row, say, would count as a row's.

    Where a row-wise step raises, nothing is known of any row of the batch. One that knows which rows failed
    yields ``RowFailure(error)`` in the place of each of them, and a list for each of the others: what it made
    of these is stored, whatever ``on_error`` is, and they are not given to it again.

    Attributes:
        row_wise: see above.
        transient_errors: exceptions that may pass, beside `TransientError`: what fails with one of them is
            tried again after a while.
        joins_input: whether the columns that a row-wise step is not handed are joined onto its rows.
        input_batch_size: rows in each batch. Never part of the signature; of a step that is not row-wise it
            names the output all the same, since what the step gives may depend on it.
        on_error: what becomes of a row for which ``process`` raises: ``"raise"`` ends the run, ``"skip"``
            leaves it out, ``"null"`` gives it with None in ``outputs``. Where the step is not row-wise, of
            all rows of the batch. Such rows are never stored: the next run tries them again.
        batch_retries: how often a batch, or the rows of it that failed, are tried again after errors that may
            pass, before ``on_error`` holds.
        batch_timeout: seconds that ``process`` may take for a batch; None: any. It runs on a thread of its
            own then, so that one that takes longer can be left behind: its replica is replaced, and the batch
            counts as one that killed its process.
    """

    row_wise: ClassVar[bool] = False
    joins_input: ClassVar[bool] = True
    transient_errors: ClassVar[tuple[type[Exception], ...]] = ()

    input_batch_size: Unsigned[RuntimeParameter[int]] = Field(default=DEFAULT_BATCH_SIZE, ge=1)
    on_error: Unsigned[OnError] = "raise"
    batch_retries: Unsigned[RuntimeParameter[int]] = Field(default=3, ge=0)
    batch_timeout: Unsigned[RuntimeParameter[float | None]] = Field(default=None, gt=0)

    @property
    def strides(self) -> tuple[int, ...]:
        """For each predecessor how many of its rows belong to one row of the first; empty: one of each."""
        return ()

    @property
    def null_rows(self) -> int:
        """How many rows stand for one that failed, where ``on_error`` is ``"null"``."""
        return 1

    @property
    def batches_at_once(self) -> int:
        """How many batches ``process`` may be given at once, in threads of one replica.

        More than one only where ``process`` may run several times at once; ``load`` runs before, maybe in
        another thread. It is worth it where ``process`` waits for something outside of the replica.
        """
        return 1

    @property
    def output_limit(self) -> int | None:
        """A bound on what is made for each unit, such as a number of tokens, that is not signed."""
        return None

    def limits_served(self, rows: Sequence[Row]) -> tuple[int, int | None]:  # noqa: ARG002
        """Return the smallest and the largest limit for which a unit's rows are what it would be given."""
        return 0, None

    def may_pass(self, error: BaseException) -> bool:
        """Return whether what failed with an error is to be tried again."""
        return isinstance(error, (TransientError, *self.transient_errors))

    @abstractmethod
    def process(self, *inputs: Any, **kwargs: Any) -> Iterator[Any]:  # so open that any override fits
        """Yield one or more lists of rows made from the batch."""
        raise NotImplementedError


class GlobalStep(Step):
    """A step that is given all rows of its predecessors in one call."""

    @property
    def is_global(self) -> bool:
        """Whether the step is given all its rows at once."""
        return True


class GeneratorStep(BaseStep):
    """Makes rows: ``process(offset)`` yields ``(rows, last)``, beginning with row number ``offset``.

    A run that resumes calls ``process(offset=N)`` with the number of rows it already has.

    Attributes:
        batch_size: rows in each batch that the step makes. Never part of the signature.
    """

    batch_size: Unsigned[RuntimeParameter[int]] = Field(default=DEFAULT_BATCH_SIZE, ge=1)

    @property
    def is_generator(self) -> bool:
        """Whether the step makes rows from nothing."""
        return True

    @abstractmethod
    def process(self, offset: int = 0) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        """Yield ``(rows, last)`` from row number ``offset`` on."""
        raise NotImplementedError
