"""Which of the steps that follow one get a batch of its rows: users' functions, and sampling.

The function is called in the driver with the steps' names, once for each batch and in their order, and never
sees a row. Whatever it draws at random comes from generators that are seeded by the place and the batch.
"""

from __future__ import annotations

import functools
import importlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import Field

from distill_ray.declaration import Declaration
from distill_ray.errors import GraphError

if TYPE_CHECKING:
    from distill_ray.steps.base import BaseStep

StepsT = TypeVar("StepsT")

RoutingFunction: TypeAlias = Callable[[list[str]], list[str]]
"""Given the names of all steps that follow, says which of them get the batch."""

_HOW = "write `upstream >> routing >> [one_step, another_step]`"


@dataclass(frozen=True, eq=False)
class RoutingBatchFunction:
    """Routes batches of a step's rows: ``upstream >> routing >> [one_step, another_step]``.

    Attributes:
        routing_function: says which steps get a batch.
        description: for readers.
    """

    routing_function: RoutingFunction
    description: str | None = None
    _upstream: BaseStep | None = field(default=None, repr=False, compare=False)
    _made: dict[tuple[str, str, tuple[str, ...]], list[frozenset[str]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Choices by place and steps: a function that counts its calls chooses the same in each run."""

    @property
    def name(self) -> str:
        """What to call it."""
        function = self.routing_function
        if isinstance(function, SampleSteps):
            return f"sample_n_steps({function.n})"
        return getattr(function, "__name__", type(function).__name__)

    def after(self, upstream: BaseStep) -> RoutingBatchFunction:
        """The same function, for the rows of a step."""
        return RoutingBatchFunction(self.routing_function, self.description, upstream, self._made)

    def __rshift__(self, steps: StepsT) -> StepsT:
        """Connect the steps; gives them back, so that it can go on."""
        if not isinstance(steps, list | tuple):
            raise GraphError(f"Batches are routed to a list of steps, got {steps!r:.200}: {_HOW}.")
        if self._upstream is None:
            raise GraphError(f"'{self.name}' has no rows to route: {_HOW}.")
        self._upstream.connect(*steps, routing_batch_function=self)
        return steps

    def __rrshift__(self, other: Any) -> Any:
        """Refuse ``[a, b] >> routing``."""
        raise GraphError(f"The rows of one step are routed, got {other!r:.200}: {_HOW}.")

    def choice(self, place: tuple[str, str], steps: tuple[str, ...], number: int) -> frozenset[str]:
        """The steps that get a batch.

        Args:
            place: what the random numbers depend on beside the batch: the function's signature, and the step
                that the rows come from.
            steps: the steps that follow.
            number: the number of the batch.

        Raises:
            GraphError: the function did not give names of these steps.
        """
        made = self._made.setdefault((*place, steps), [])
        while len(made) <= number:
            with _seeded(f"{place[0]} {place[1]} {len(made)}"):
                chosen = self.routing_function(list(steps))
            made.append(self._checked(chosen, steps, len(made)))
        return made[number]

    def _checked(self, chosen: Any, steps: Sequence[str], number: int) -> frozenset[str]:
        is_list = isinstance(chosen, list | tuple | set | frozenset)
        if is_list and chosen and all(name in steps for name in chosen) and len(set(chosen)) == len(chosen):
            return frozenset(chosen)
        known = ", ".join(f"'{name}'" for name in steps)
        raise GraphError(
            f"'{self.name}' must return one or more of the steps that it is given ({known}), each once, as a "
            f"list, but for batch {number} it returned {chosen!r:.200}."
        )


class SampleSteps(Declaration):
    """Chooses steps at random.

    Attributes:
        n: how many.
    """

    n: int = Field(ge=1)

    def __call__(self, steps: list[str]) -> list[str]:
        """Choose ``n`` of the steps."""
        if self.n > len(steps):
            raise GraphError(f"sample_n_steps({self.n}) cannot choose among {len(steps)} steps.")
        drawn = [(random.random(), name) for name in steps]  # noqa: S311 - no secret; the same in each Python
        return [name for _, name in sorted(drawn)[: self.n]]


def routing_batch_function(
    description: str | None = None,
) -> Callable[[RoutingFunction], RoutingBatchFunction]:
    """Make a routing batch function from a function that is given the names of all steps that follow.

    It must depend on nothing else, but may draw from ``random`` and from numpy's global generator: they are
    seeded before each call, so that a run that resumes routes each batch as before.

    Args:
        description: for readers.

    Example:
        >>> @routing_batch_function(description="Two of the steps.")
        ... def two_steps(steps):
        ...     return random.sample(steps, 2)
        >>> two_steps.description
        'Two of the steps.'
    """

    def decorate(function: RoutingFunction) -> RoutingBatchFunction:
        return RoutingBatchFunction(function, description)

    if callable(description):
        raise GraphError("@routing_batch_function wants parentheses: write `@routing_batch_function()`.")
    return decorate


def sample_n_steps(n: int) -> RoutingBatchFunction:
    """Route each batch to ``n`` of the steps that follow, drawn at random: each run draws the same."""
    return RoutingBatchFunction(SampleSteps(n=n), f"Sample {n} steps from the list of downstream steps.")


@functools.cache
def _numpy_random() -> Any:
    """Load numpy's generator also where nothing has asked for it yet: the function may be the first."""
    try:
        return importlib.import_module("numpy.random")
    except ImportError:
        return None


@contextmanager
def _seeded(seed: str) -> Iterator[None]:
    """Seed ``random`` and numpy's generator, if there is numpy, and restore them afterwards."""
    numpy = _numpy_random()
    state, state_of_numpy = random.getstate(), numpy.get_state() if numpy else None
    random.seed(seed)  # of a text: its SHA-512
    if numpy:
        numpy.seed([random.getrandbits(32) for _ in range(4)])
        random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.set_state(state_of_numpy)
