"""The plan: for each step what is already known, what must run, and why; decided before anything starts.

`make_plan` asks a `Catalog` what the cache holds and decides. The result is a value: ``run``, ``plan``,
the report and the tests all read the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.part import UnitIndex
from distill_ray.cache.paths import FunctionId
from distill_ray.graph import Graph
from distill_ray.signature.encode import digest
from distill_ray.steps.signing import StepFunction, step_function

Decision: TypeAlias = Literal["hit", "resume", "compute", "forced", "not needed"]


class Catalog(Protocol):
    """What the plan asks of the cache."""

    def manifest(self, function: FunctionId, output_key: str) -> tuple[Manifest | None, str]:
        """Return the output's manifest if it can be believed, else None and why not ("": there is none)."""

    def indexes(self, function: FunctionId) -> Sequence[tuple[PartEntry, UnitIndex]]:
        """Return the unit indexes of the parts that any run left of this function."""


@dataclass(frozen=True)
class StepPlan:
    """What is to become of one step.

    Attributes:
        name: the step's name.
        decision: ``hit``, ``resume``, ``compute``, ``forced`` or ``not needed``.
        reason: why, in words.
        function: the step function.
        output_key: what names its output.
        rows_known: rows that are stored: of a hit all, else those of units that may be found again.
        manifest: of a hit.
        indexes: of a resumed step: what its parts hold.
        replace_manifest: a manifest that stands under this output key is not to be believed.
    """

    name: str
    decision: Decision
    reason: str
    function: FunctionId
    output_key: str
    rows_known: int = 0
    manifest: Manifest | None = None
    indexes: tuple[tuple[PartEntry, UnitIndex], ...] = ()
    replace_manifest: bool = False

    @property
    def runs(self) -> bool:
        """Whether the step takes part in the run beyond being read."""
        return self.decision in ("resume", "compute", "forced")


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Attributes:
        pipeline: the pipeline's name.
        signature: ``Pipeline.signature``.
        aggregated: ``Pipeline.aggregated_steps_signature``.
        steps: in an order in which each comes after its predecessors.
        functions: the signed step functions, by step name.
        graph: the steps and their connections.
    """

    pipeline: str
    signature: str
    aggregated: str
    steps: tuple[StepPlan, ...]
    functions: Mapping[str, StepFunction]
    graph: Graph

    def __getitem__(self, name: str) -> StepPlan:
        return next(step for step in self.steps if step.name == name)

    @property
    def complete(self) -> bool:
        """Whether nothing must run."""
        return not any(step.runs for step in self.steps)


def aggregated_signature(functions: Mapping[str, StepFunction]) -> str:
    """Digest of the signatures of all steps."""
    return digest(sorted(function.signature for function in functions.values()))


def sign(graph: Graph) -> dict[str, StepFunction]:
    """Sign every step of a graph."""
    return {name: step_function(step) for name, step in graph.steps.items()}


def make_plan(pipeline: str, graph: Graph, catalog: Catalog, *, use_cache: bool = True) -> Plan:
    """Decide what must run.

    Args:
        pipeline: the pipeline's name.
        graph: the checked graph.
        catalog: what the cache holds.
        use_cache: False computes every step anew.
    """
    functions = sign(graph)
    deciding = _Deciding(graph, functions, catalog, use_cache)
    decided = deciding.decide()
    return Plan(
        pipeline=pipeline,
        signature=graph.signature(),
        aggregated=aggregated_signature(functions),
        steps=tuple(decided[name] for name in graph.order()),
        functions=functions,
        graph=graph,
    )


class _Deciding:
    """One walk over the graph, from the leaves up."""

    def __init__(
        self, graph: Graph, functions: Mapping[str, StepFunction], catalog: Catalog, use_cache: bool
    ) -> None:
        self._graph = graph
        self._catalog = catalog
        self._ids = {name: FunctionId(f.class_name, f.signature) for name, f in functions.items()}
        self._keys: dict[str, str] = {}
        for name in graph.order():
            inputs = [self._keys[source] for source in graph.predecessors(name)]
            self._keys[name] = digest({"function": functions[name].signature, "inputs": inputs})
        self._forced = self._forced_steps(use_cache)
        self._asked: dict[str, tuple[Manifest | None, str]] = {}

    def _forced_steps(self, use_cache: bool) -> dict[str, str]:
        """Steps that are computed anew, and why."""
        forced: dict[str, str] = {}
        for name in self._graph.order():
            above = next((source for source in self._graph.predecessors(name) if source in forced), None)
            if not use_cache:
                forced[name] = "run(use_cache=False)"
            elif not self._graph.steps[name].use_cache:
                forced[name] = "use_cache=False on this step"
            elif above:
                forced[name] = f"'{above}' above it is computed anew"
        return forced

    def decide(self) -> dict[str, StepPlan]:
        rejected: dict[str, str] = {}
        while True:
            needed, hits = self._needed_and_hits(rejected)
            found = self._contradictions(needed, hits)
            if not found:
                return {name: self._step_plan(name, needed, hits, rejected) for name in self._graph.order()}
            rejected.update(found)

    def _manifest(self, name: str) -> tuple[Manifest | None, str]:
        if name not in self._asked:
            self._asked[name] = self._catalog.manifest(self._ids[name], self._keys[name])
        return self._asked[name]

    def _needed_and_hits(self, rejected: Mapping[str, str]) -> tuple[set[str], dict[str, Manifest]]:
        """Ask leaf first: what lies above a hit is needed by it no more."""
        needed, hits = set(self._graph.leaves()), {}
        for name in reversed(self._graph.order()):
            if name not in needed:
                continue
            usable = name not in self._forced and name not in rejected
            manifest = self._manifest(name)[0] if usable else None
            if manifest is not None:
                hits[name] = manifest
            else:
                needed.update(self._graph.predecessors(name))
        return needed, hits

    def _contradictions(self, needed: set[str], hits: Mapping[str, Manifest]) -> dict[str, str]:
        """Hits that rest on other rows of a step above them than this run has: they are no hits."""
        found: dict[str, str] = {}
        agreed: dict[str, str] = {}
        for name in self._graph.order():
            if name not in hits:
                continue
            above = self._graph.ancestors(name)
            computed = next((a for a in self._graph.order() if a in above & needed and a not in hits), None)
            differs = next((k for k, v in hits[name].lineage.items() if agreed.get(k, v) != v), None)
            if computed:
                found[name] = f"'{computed}' above it has to run"
            elif differs:
                found[name] = "it was made from other rows of a step above it than another output of this run"
            else:
                agreed.update(hits[name].lineage)
        return found

    def _step_plan(
        self, name: str, needed: set[str], hits: Mapping[str, Manifest], rejected: Mapping[str, str]
    ) -> StepPlan:
        function, key = self._ids[name], self._keys[name]
        if name not in needed:
            return StepPlan(name, "not needed", "all that follows it is known", function, key)
        if name in hits:
            rows = hits[name].rows
            return StepPlan(name, "hit", "its complete output is stored", function, key, rows, hits[name])
        if name in self._forced:
            return StepPlan(name, "forced", self._forced[name], function, key, replace_manifest=True)
        manifest, distrust = self._manifest(name)
        distrust = rejected.get(name) or distrust
        stale = bool(manifest or distrust)
        indexes = tuple(self._catalog.indexes(function))
        if indexes:
            rows = sum(sum(index.counts) for _, index in indexes)
            reason = distrust or "no complete output for this input, but parts of this function are stored"
            return StepPlan(name, "resume", reason, function, key, rows, None, indexes, stale)
        reason = distrust or "nothing is stored of this function"
        return StepPlan(name, "compute", reason, function, key, replace_manifest=stale)
