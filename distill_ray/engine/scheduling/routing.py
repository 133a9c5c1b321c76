"""How rows flow where batches are routed: to the steps that are chosen, and together again.

A `Fork` cuts a step's rows into batches and pushes each to the edges of the steps that are chosen for it. A
`Converging` step is given, for each of these batches, the rows of the edges that had it. Both ask `Choices`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_ray.engine.messages import Failure
from distill_ray.engine.scheduling.blocks import Blocks, Piece
from distill_ray.engine.scheduling.edge import Edge, split
from distill_ray.errors import DistillRayError
from distill_ray.tracebacks import user_traceback

if TYPE_CHECKING:
    from distill_ray.engine.scheduling.step_state import StepSpec, StepState


@dataclass(frozen=True)
class RouteSpec:
    """How the scheduler sees a routing.

    Attributes:
        upstream: the step whose rows are routed.
        batch_size: rows that are routed together.
        choose: gives the steps that the batch of this number is routed to; may raise.
        before: `Choices.summary` of the runs whose output is read; empty: there is none.
    """

    upstream: str
    batch_size: int
    choose: Callable[[int], frozenset[str]]
    before: str = ""


class Choices:
    """Where the batches of a step's rows are routed, as far as its rows are known.

    Attributes:
        rows: how many rows are known.
        ended: whether these are all.
        failure: why a batch could not be routed.
    """

    def __init__(self, spec: RouteSpec) -> None:
        self.spec = spec
        self.rows = 0
        self.ended = False
        self.failure: Failure | None = None
        self._made: list[frozenset[str]] = []
        self._digest = hashlib.sha256()

    def room(self) -> int:
        """How many more rows go the same way as the one before; a whole batch at its end."""
        return self.spec.batch_size - self.rows % self.spec.batch_size

    def take(self, rows: int) -> frozenset[str]:
        """Take in rows, of one batch, and say where they go: nowhere once a batch could not be routed."""
        if self.failure is None and self.rows == len(self._made) * self.spec.batch_size:
            self._choose()
        self.rows += rows
        return frozenset() if self.failure else self._made[-1]

    def _choose(self) -> None:
        number = len(self._made)
        try:
            chosen = self.spec.choose(number)
        except Exception as error:
            said = str(error) if isinstance(error, DistillRayError) else f"{type(error).__name__}: {error}"
            message = f"its batch {number} could not be routed: {said}"
            self.failure = Failure(self.spec.upstream, message, user_traceback(error))
        else:
            self._made.append(chosen)
            self._digest.update("\0".join(sorted(chosen)).encode("utf-8", "surrogatepass") + b"\1")

    def end(self) -> None:
        """All rows are known. Hold the choices against those that an earlier run made."""
        self.ended = True
        if self.failure is None and self.spec.before not in ("", self.summary):
            self.failure = Failure(
                self.spec.upstream,
                "its batches are routed otherwise now than in the run that made what is stored: the routing "
                "function depends on more than the steps' names and what `random` draws. Let it depend on "
                "these alone, or compute all anew with run(use_cache=False).",
            )

    def repeat(self) -> None:
        """Choose as for the rows of an earlier run: nobody reads them again."""
        rows = int(self.spec.before.partition(" ")[0] or 0)
        while self.rows < rows and self.failure is None:
            self.take(min(self.spec.batch_size, rows - self.rows))
        self.end()

    @property
    def summary(self) -> str:
        """How many rows there are, and a digest of where they go."""
        return f"{self.rows} {self._digest.hexdigest()}"

    def batch(self, number: int) -> tuple[frozenset[str], int] | None:
        """Where a batch goes, and its rows, at most as long as more may come; None: it is not known yet."""
        if number >= len(self._made):
            return None
        size = self.spec.batch_size
        return self._made[number], min(size, self.rows - number * size) if self.ended else size

    def rows_of(self, branches: frozenset[str]) -> int:
        """How many rows of an output that has ended were routed to at least one of some steps."""
        known = (self.batch(number) for number in range(len(self._made)))
        return sum(batch[1] for batch in known if batch is not None and batch[0] & branches)


class Fork(Edge):
    """Where a step's rows part: takes them as an edge does, and hands them on to the chosen steps."""

    def __init__(self, choices: Choices, blocks: Blocks) -> None:
        super().__init__(choices.spec.upstream, "")
        self.choices = choices
        self._blocks = blocks
        self._edges: list[tuple[str, Edge]] = []
        self.consumers.clear()

    def edge(self, branch: str, consumer: str, rows_ahead: float) -> Edge:
        """Return a new edge, for rows of batches for which ``branch`` is chosen."""
        edge = Edge(self.producer, consumer, rows_ahead)
        self.consumers.append(consumer)
        self._edges.append((branch, edge))
        return edge

    def push(self, piece: Piece) -> None:
        """Hand rows on to whom they are routed; these need them instead of the fork."""
        rest = piece
        while rest.slice.rows:
            now, rest = split(rest, min(self.choices.room(), rest.slice.rows))
            chosen = self.choices.take(now.slice.rows)
            for branch, edge in self._edges:
                if branch in chosen:
                    self._blocks.need(now.slice)
                    edge.push(now)
        self._blocks.done([piece.slice])

    def close(self) -> None:
        """No more rows will come."""
        super().close()
        self.choices.end()
        for _, edge in self._edges:
            edge.close()

    @property
    def wants_rows(self) -> bool:
        """Whether one of the steps has few rows left, whoever the next ones are for."""
        return any(edge.wants_rows for _, edge in self._edges)


class Converging:
    """What a step is given that joins routed batches: of each batch the rows of those edges that had it.

    Args:
        choices: where the batches were routed.
        branches: for each edge the steps of which one must be chosen for it to have a batch.
        edges: the step's inputs.
    """

    def __init__(self, choices: Choices, branches: Sequence[frozenset[str]], edges: Sequence[Edge]) -> None:
        self._choices = choices
        self._inputs = list(zip(branches, edges, strict=True))
        self._batch = 0
        self._taken = 0
        self._of_batch: tuple[Edge, ...] = ()
        self._is_checked = False

    def edges(self) -> tuple[Edge, ...]:
        """The edges that the next rows are taken from; none: it is not known yet, or nothing is left."""
        while (batch := self._choices.batch(self._batch)) is not None:
            chosen, rows = batch
            if not self._of_batch:
                self._of_batch = tuple(edge for branches, edge in self._inputs if branches & chosen)
            if self._of_batch and self._taken < rows:
                return self._of_batch
            self._batch, self._taken, self._of_batch = self._batch + 1, 0, ()
        return ()

    def at_most(self) -> int:
        """How many rows there are to take from these edges, at most as long as more may come."""
        batch = self._choices.batch(self._batch)
        return batch[1] - self._taken if batch is not None else 0

    def take(self, rows: int) -> None:
        """Take in that rows were taken from them."""
        self._taken += rows

    def mismatch(self, step: str) -> Failure | None:
        """Why the rows do not belong together, if that is so; all edges are closed."""
        if self._is_checked or not self._choices.ended or self._choices.failure:
            return None
        self._is_checked = True
        for branches, edge in self._inputs:
            routed = self._choices.rows_of(branches)
            if edge.total != routed:
                return Failure(
                    step,
                    f"it joins, row by row, what became of batches of '{self._choices.spec.upstream}', but "
                    f"'{edge.producer}' gave {edge.total} rows for the {routed} that were routed its way. "
                    "Let steps that change the number of rows come after the join, or before the routing.",
                )
        return None


class Routes:
    """All that is routed in a run.

    Args:
        specs: how, for each step whose rows are.
        blocks: the run's blocks.
    """

    def __init__(self, specs: Iterable[RouteSpec], blocks: Blocks) -> None:
        self._blocks = blocks
        self._choices = {spec.upstream: Choices(spec) for spec in specs}
        self._forks: dict[str, Fork] = {}

    @property
    def failure(self) -> Failure | None:
        """Why a batch could not be routed, if that is so."""
        return next((choices.failure for choices in self._choices.values() if choices.failure), None)

    def summary(self, upstream: str) -> str:
        """See `Choices.summary`."""
        return self._choices[upstream].summary

    def edges(
        self, spec: StepSpec, rows_ahead: float, follow: Callable[[str, Edge], None]
    ) -> tuple[Edge, ...]:
        """Make the edges that lead into a step; ``follow`` puts one behind the step that pushes to it."""
        edges = []
        for number, producer in enumerate(spec.predecessors):
            branch = spec.branch(number)
            if branch is None:
                edges.append(Edge(producer, spec.name, rows_ahead))
                follow(producer, edges[-1])
                continue
            if producer not in self._forks:
                self._forks[producer] = Fork(self._choices[producer], self._blocks)
                follow(producer, self._forks[producer])
            edges.append(self._forks[producer].edge(branch, spec.name, rows_ahead))
        return tuple(edges)

    def join(self, states: Iterable[StepState]) -> None:
        """Let steps that join routed batches know how; choose again for rows that nobody reads any more."""
        for state in states:
            if (joins := state.spec.converges) is not None:
                choices = self._choices[joins.upstream]
                state.converging = Converging(choices, joins.branches, state.inputs)
        for upstream, choices in self._choices.items():
            if upstream not in self._forks:  # only what was made of them is read
                choices.repeat()
