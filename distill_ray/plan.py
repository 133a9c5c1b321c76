"""The plan: for each step what is already known, what must run, and why; decided before anything starts.

`make_plan` asks a `Catalog` what the cache holds and decides. The result is a value: ``run``, ``plan``,
the report and the tests all read the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

from distill_ray.cache.catalog import at_once
from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.records import StepRecord
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.errors import ParameterError
from distill_ray.explain.comparison import History, StepNow, reasons_of
from distill_ray.explain.forced import forced_steps
from distill_ray.explain.reason import Reason
from distill_ray.graph import Graph, expand
from distill_ray.graph.dag import listed
from distill_ray.graph.output_keys import batch_size, families, output_keys, output_limit
from distill_ray.graph.routing import SignedRouting, routing_of, signed_routings
from distill_ray.graph.streams import is_given_some
from distill_ray.signature.encode import digest
from distill_ray.steps.signing import StepFunction, step_function

Decision: TypeAlias = Literal["hit", "resume", "compute", "forced", "not needed"]


class Catalog(History, Protocol):
    """What the plan asks of the cache, about several steps at once from threads of its own."""

    def manifest(self, function: FunctionId, output_key: str, *, leaf: bool) -> tuple[Manifest | None, str]:
        """Return the output's manifest if it can be believed, else None and why not ("": there is none).

        ``leaf``: its rows are handed out, and do not flow into another step.
        """

    def canonical(self, signature: str) -> str:
        """Return the signature that a function's outputs are stored under: its own, or an older one's."""

    def indexes(self, function: FunctionId) -> Sequence[tuple[PartEntry, UnitIndex]]:
        """Return the unit indexes of the parts that any run left of this function."""


@dataclass(frozen=True)
class StepPlan:
    """What is to become of one step.

    Attributes:
        name: the step's name.
        decision: ``hit``, ``resume``, ``compute``, ``forced`` or ``not needed``.
        reason: why, in words.
        reasons: of a step that runs: why, each reason by itself.
        function: the step function.
        output_key: what names its output.
        rows_known: rows that are stored: of a hit all, else those of units that may be found again.
        input_rows: rows that flow into it; None where they are not known before the run.
        manifest: of a hit.
        indexes: of a resumed step: what its parts hold.
        taken: of a resumed step: outputs of equal steps on the same input, whose rows are not given again.
        replace_manifest: a manifest that stands under this output key is not to be believed.
        output_limit: see `Step.output_limit`.
        family: what it has in common with equal steps whose rows come from equal steps. What is stored of a
            function is shared by all families, while within one each step gives rows of its own.
    """

    name: str
    decision: Decision
    reason: str
    function: FunctionId
    output_key: str
    reasons: tuple[Reason, ...] = ()
    rows_known: int = 0
    input_rows: int | None = None
    manifest: Manifest | None = field(default=None, repr=False)
    indexes: tuple[tuple[PartEntry, UnitIndex], ...] = field(default=(), repr=False)
    taken: tuple[Manifest, ...] = field(default=(), repr=False)
    replace_manifest: bool = False
    output_limit: int | None = None
    family: str = ""

    @property
    def runs(self) -> bool:
        """Whether the step takes part in the run beyond being read."""
        return self.decision in ("resume", "compute", "forced")

    @property
    def rows_to_compute(self) -> int | None:
        """Input rows that the step is given at most (a resumed one finds some of them); None: not known."""
        return self.input_rows if self.runs else 0


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Attributes:
        pipeline: the pipeline's name.
        signature: ``Pipeline.signature``.
        aggregated: ``Pipeline.aggregated_steps_signature``.
        steps: in an order in which each comes after its predecessors.
        functions: the signed step functions, by step name.
        graph: the steps and their connections: of what runs, with three steps in the place of each task.
        routings: how batches are routed, by the step that they come from.
    """

    pipeline: str
    signature: str
    aggregated: str
    steps: tuple[StepPlan, ...]
    functions: Mapping[str, StepFunction] = field(repr=False)  # their preimages hold whole data sets
    graph: Graph = field(repr=False)
    routings: Mapping[str, SignedRouting] = field(default_factory=dict)

    def __getitem__(self, name: str) -> StepPlan:
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"There is no step '{name}' in the plan: {', '.join(s.name for s in self.steps)}.")

    def parts_of(self, step: str) -> tuple[StepPlan, ...]:
        """The step of this name, or all that a task of this name was taken apart into.

        Raises:
            ParameterError: there is none.
        """
        parts = tuple(each for each in self.steps if f"{each.name}/".startswith(f"{step}/"))
        if not parts:
            raise ParameterError(f"There is no step '{step}' in the pipeline: {listed(self.graph.steps)}.")
        return parts

    def routing_key(self, upstream: str) -> str:
        """What names how the output of a step is routed."""
        return self.routings[upstream].key(self[upstream].output_key)

    @property
    def records(self) -> dict[str, StepRecord]:
        """What is remembered of the steps for later plans, by name, each after its predecessors."""
        return {
            step.name: StepRecord(
                step.function,
                step.output_key,
                self.graph.predecessors(step.name),
                step.output_limit,
                batch_size(self.graph.steps[step.name]),
                routing_of(self.graph, self.routings, step.name),
            )
            for step in self.steps
        }

    @property
    def now(self) -> dict[str, StepNow]:
        """The steps as they are compared with earlier runs', by name, each after its predecessors."""
        return {name: StepNow(record, self.functions[name]) for name, record in self.records.items()}

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


def default_name(aggregated: str) -> str:
    """The name of a pipeline that was given none: one made from its steps' signatures."""
    return f"pipeline_{aggregated[:12]}"


def make_plan(pipeline: str | None, graph: Graph, catalog: Catalog, *, use_cache: bool = True) -> Plan:
    """Decide what must run.

    Args:
        pipeline: the pipeline's name, if it was given one.
        graph: the checked graph, as the user made it.
        catalog: what the cache holds.
        use_cache: False computes every step anew.
    """
    signed = sign(graph)
    aggregated = aggregated_signature(signed)
    running = expand(graph, {name: function.signature for name, function in signed.items()})
    functions = {
        name: signed[name] if step is graph.steps.get(name) else step_function(step)
        for name, step in running.steps.items()
    }
    undecided = Plan(
        pipeline=pipeline or default_name(aggregated),
        signature=graph.signature(),
        aggregated=aggregated,
        steps=(),
        functions=functions,
        graph=running,
        routings=signed_routings(running),
    )
    return renewed(undecided, catalog, use_cache=use_cache)


def renewed(plan: Plan, catalog: Catalog, *, use_cache: bool = True) -> Plan:
    """Decide anew, of the same steps, what must run: the cache may hold more than it did, or less."""
    decided = _Deciding(plan, catalog, use_cache).decide()
    plan = replace(plan, steps=tuple(decided[name] for name in plan.graph.order()))
    return replace(plan, steps=_with_reasons(plan, catalog))


def is_outdated(plan: Plan, catalog: Catalog) -> bool:
    """Whether some output that was missing is there by now: one read for each."""
    missing = [step.name for step in plan.steps if step.decision in ("resume", "compute")]

    def ask(name: str) -> bool:
        return catalog.manifest(plan[name].function, plan[name].output_key, leaf=False)[0] is not None

    return any(at_once(ask, missing))


def _with_reasons(plan: Plan, catalog: Catalog) -> tuple[StepPlan, ...]:
    """The steps, those that run with what changed since the pipeline's last runs."""
    asked = [step.name for step in plan.steps if step.runs and not step.reasons]
    found = reasons_of(asked, plan.now, plan.pipeline, catalog, at_once)
    return tuple(
        replace(step, reasons=found[step.name], reason=_sentence(found[step.name], step))
        if step.name in found
        else step
        for step in plan.steps
    )


def _sentence(reasons: tuple[Reason, ...], step: StepPlan) -> str:
    """The reasons, and what it means for the step."""
    told = "; ".join(map(str, reasons))
    if reasons[0].kind == "first run":
        return f"{told}: {step.reason}"
    return f"{told}; {step.reason}" if step.decision == "resume" else told


class _Deciding:
    """Asks the catalog from the leaves up, then decides from the sources down."""

    def __init__(self, plan: Plan, catalog: Catalog, use_cache: bool) -> None:
        self._graph = plan.graph
        self._catalog = catalog
        self._ids = {
            name: FunctionId(f.class_name, catalog.canonical(f.signature))
            for name, f in plan.functions.items()
        }
        self._keys = output_keys(plan.graph, self._ids, plan.routings)
        self._families = families(plan.graph, self._ids)
        self._forced = forced_steps(plan.graph, use_cache)
        self._asked: dict[str, tuple[Manifest | None, str]] = {}

    def decide(self) -> dict[str, StepPlan]:
        rejected: dict[str, Reason] = {}
        while True:
            needed, hits = self._needed_and_hits(rejected)
            found = self._contradictions(needed, hits)
            if not found:
                break
            rejected.update(found)
        missing = [name for name in needed if name not in hits and name not in self._forced]
        indexes = dict(at_once(lambda name: (name, self._catalog.indexes(self._ids[name])), missing))
        taken = self._taken(missing)
        decided: dict[str, StepPlan] = {}
        for name in self._graph.order():
            if name not in needed:
                decided[name] = self._step(name, "not needed", "all that follows it is known")
            elif name in hits:
                manifest = hits[name]
                reason = "its complete output is stored"
                decided[name] = self._step(name, "hit", reason, rows_known=manifest.rows, manifest=manifest)
            else:
                sources = () if is_given_some(self._graph, name) else self._graph.predecessors(name)
                rows = next((hits[source].rows for source in sources if source in hits), None)
                step = self._running(name, rejected.get(name), indexes.get(name, ()))
                step = _without_taken(step, taken.get(name, ())) if step.indexes else step
                decided[name] = replace(step, input_rows=rows)
        return decided

    def _step(self, name: str, decision: Decision, reason: str, **known: Any) -> StepPlan:
        return StepPlan(
            name,
            decision,
            reason,
            self._ids[name],
            self._keys[name],
            output_limit=output_limit(self._graph.steps[name]),
            family=self._families[name],
            **known,
        )

    def _needed_and_hits(self, rejected: Mapping[str, Reason]) -> tuple[set[str], dict[str, Manifest]]:
        """Ask leaf first: what lies above a hit is needed by it no more."""
        needed: set[str] = set()
        hits: dict[str, Manifest] = {}
        wanted = set(self._graph.leaves())
        while wanted:
            needed |= wanted
            usable = [name for name in wanted if name not in self._forced and name not in rejected]
            self._ask([name for name in usable if name not in self._asked])
            for name in usable:
                manifest = self._asked[name][0]
                if manifest is not None:
                    hits[name] = manifest
            above = {source for name in wanted - set(hits) for source in self._graph.predecessors(name)}
            wanted = above - needed
        return needed, hits

    def _ask(self, names: Sequence[str]) -> None:
        leaves = self._graph.leaves()

        def ask(name: str) -> tuple[Manifest | None, str]:
            return self._catalog.manifest(self._ids[name], self._keys[name], leaf=name in leaves)

        answers = at_once(ask, names)
        self._asked.update(zip(names, answers, strict=True))

    def _taken(self, missing: Sequence[str]) -> dict[str, tuple[Manifest, ...]]:
        """For each missing step the outputs of equal steps on the same input: a second answer is another."""
        twins = {name: self._twins(name) - set(missing) - set(self._forced) for name in missing}
        self._ask([name for name in set().union(*twins.values()) if name not in self._asked])
        return {
            name: tuple(found for twin in sorted(twins[name]) if (found := self._asked[twin][0]) is not None)
            for name in missing
        }

    def _twins(self, name: str) -> set[str]:
        """The other steps of the same function on the same input."""
        above = [self._keys[source] for source in self._graph.predecessors(name)]
        return {
            other
            for other, function in self._ids.items()
            if function == self._ids[name] and other != name
            if [self._keys[source] for source in self._graph.predecessors(other)] == above
        }

    def _contradictions(self, needed: set[str], hits: Mapping[str, Manifest]) -> dict[str, Reason]:
        """Hits that rest on other rows of a step above them than this run has: they are no hits."""
        found: dict[str, Reason] = {}
        agreed: dict[str, str] = {}
        order = self._graph.order()
        for name in order:
            if name not in hits:
                continue
            above = self._graph.ancestors(name)
            computed = next((a for a in order if a in above and a in needed and a not in hits), None)
            differs = any(agreed.get(key, content) != content for key, content in hits[name].lineage.items())
            if computed:
                found[name] = Reason("upstream", f"'{computed}' above it has to run", steps=(computed,))
            elif differs:
                text = "it was made from other rows of a step above it than another output of this run"
                found[name] = Reason("upstream", text)
            else:
                agreed.update(hits[name].lineage)
        return found

    def _running(
        self, name: str, rejected: Reason | None, indexes: Sequence[tuple[PartEntry, UnitIndex]]
    ) -> StepPlan:
        """Decide about a step that has to run; where it is not said why yet, `_with_reasons` says it."""
        if name in self._forced:
            reason = self._forced[name]
            return self._step(name, "forced", reason.text, reasons=(reason,), replace_manifest=True)
        manifest, distrust = self._asked[name]
        known = rejected or (Reason("damaged", distrust) if distrust else None)
        reasons = (known,) if known else ()
        stale = manifest is not None or bool(distrust)
        if not indexes:
            text = known.text if known else "nothing is stored of it"
            return self._step(name, "compute", text, reasons=reasons, replace_manifest=stale)
        rows = sum(index.rows for _, index in indexes)
        return self._step(
            name,
            "resume",
            known.text if known else "rows that come out as before are reused",
            reasons=reasons,
            rows_known=rows,
            indexes=tuple(indexes),
            replace_manifest=stale,
        )


def _without_taken(step: StepPlan, taken: tuple[Manifest, ...]) -> StepPlan:
    """Leave the rows of equal steps to them."""
    rows = step.rows_known - sum(manifest.rows for manifest in taken)
    if not taken or rows > 0:
        return replace(step, rows_known=rows, taken=taken)
    reason = "what is stored of it is the output of an equal step of this pipeline"
    return replace(step, decision="compute", reason=reason, rows_known=0, indexes=())
