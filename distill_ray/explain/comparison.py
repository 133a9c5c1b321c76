"""Compares the steps of a plan with those of the pipeline's last runs, to say why each has to run.

Reads one small record of the pipeline, and one of each step whose function changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

from distill_ray.cache.paths import FunctionId
from distill_ray.cache.records import FunctionRecord, LastRuns, RunRecord, StepRecord
from distill_ray.explain.difference import change_text, function_reasons, listed
from distill_ray.explain.reason import Reason
from distill_ray.signature.compare import Change
from distill_ray.steps.signing import StepFunction

AtOnce: TypeAlias = Callable[[Callable[[str], tuple[Reason, ...]], list[str]], list[tuple[Reason, ...]]]
"""Asks something about several steps at the same time."""


class History(Protocol):
    """What is remembered of earlier runs."""

    @property
    def by_unit(self) -> bool:
        """Whether complete outputs are passed over on purpose, to look everything up unit by unit."""

    def last_runs(self, pipeline: str) -> LastRuns:
        """Return the steps of the pipeline's last runs."""

    def function_record(self, function: FunctionId) -> FunctionRecord | None:
        """Return what a function was made from."""

    def lacks_rows(self, run: str, output_key: str) -> bool:
        """Whether a run kept an output to itself, since rows failed on the way to it."""


@dataclass(frozen=True)
class StepNow:
    """A step as it is now.

    Attributes:
        record: function, output key and predecessors.
        signed: what its signature was made from.
    """

    record: StepRecord
    signed: StepFunction


def match_steps(now: Mapping[str, StepNow], before: RunRecord) -> dict[str, str]:
    """For each step the name of what it was before: the same name and class, or the same class in its place.

    Args:
        now: the steps by name, each after its predecessors.
        before: the steps of an earlier run.
    """
    matched: dict[str, str] = {}
    for name, step in now.items():
        known = before.steps.get(name)
        if known is not None and known.function.class_name == step.record.function.class_name:
            matched[name] = name
            continue
        above = tuple(matched.get(source, "") for source in step.record.predecessors)
        for other, candidate in before.steps.items():
            taken = other in now or other in matched.values()
            same_class = candidate.function.class_name == step.record.function.class_name
            if not taken and same_class and candidate.predecessors == above:
                matched[name] = other
                break
    return matched


class Comparison:
    """The steps of a plan beside those of the pipeline's last runs.

    Args:
        now: the steps by name, each after its predecessors.
        runs: the last runs.
    """

    def __init__(self, now: Mapping[str, StepNow], runs: LastRuns) -> None:
        self._now = now
        self._runs = [run for run in (runs.finished, runs.latest) if run is not None]
        self._matched = [match_steps(now, run) for run in self._runs]

    def before(self, name: str) -> StepRecord | None:
        """What the step was in the last run that finished, or else in one that began."""
        run = self.run_before(name)
        return run.steps[self._matched[self._runs.index(run)][name]] if run else None

    def run_before(self, name: str) -> RunRecord | None:
        """The run that `before` takes it from."""
        return next((run for run, matched in self._paired() if name in matched), None)

    def run_with_it(self, name: str) -> RunRecord | None:
        """The last run that had the very same step with the same input: its output should be there."""
        key = self._now[name].record.output_key
        for run, matched in self._paired():
            if name in matched and run.steps[matched[name]].output_key == key:
                return run
        return None

    def _paired(self) -> list[tuple[RunRecord, dict[str, str]]]:
        return list(zip(self._runs, self._matched, strict=True))

    def changed(self, name: str) -> bool:
        """Whether the step function is another one than before."""
        before = self.before(name)
        return before is not None and before.function != self._now[name].record.function

    def other_units(self, name: str) -> Reason | None:
        """What its units are, the bound on what it makes for each, or how they are routed is not what it was.

        None is a part of its function.
        """
        before, now = self.before(name), self._now[name].record
        if before is None:
            return None
        changes = []
        if before.limit != now.limit:
            changes.append(Change("max_new_tokens", before.limit, now.limit))
        if before.batch_size != now.batch_size and before.batch_size and now.batch_size:
            changes.append(Change("input_batch_size", before.batch_size, now.batch_size))
        told = [change_text(each) for each in changes]
        if before.routing != now.routing:
            changes.append(Change("routing", before.routing, now.routing))
            told.append(
                f"routing changed: {before.routing or 'all to each'} -> {now.routing or 'all to each'}"
            )
        return Reason("config", listed(told), changes=tuple(changes)) if changes else None

    def upstream(self, name: str, own: Mapping[str, tuple[Reason, ...]]) -> Reason | None:
        """Where it begins that the step is given other rows than before, if it is."""
        roots = self._roots[name]
        if not roots:
            return None
        return Reason(
            "upstream", listed([f"'{root}' ({_kinds(own.get(root, ()))})" for root in roots]), steps=roots
        )

    @cached_property
    def _roots(self) -> Mapping[str, tuple[str, ...]]:
        """For each step those above it that are not what they were, the nearest ones first."""
        roots: dict[str, tuple[str, ...]] = {}
        for name in self._now:  # each after its predecessors
            roots[name] = self._roots_of(name, roots)
        return roots

    def _roots_of(self, name: str, above: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """New steps, and those whose function changed."""
        before, sources = self.before(name), self._now[name].record.predecessors
        if before is None:
            return ()
        roots: dict[str, None] = {}
        for source in sources:
            known = self.before(source)
            if known is None or self.changed(source) or self.other_units(source):
                roots[source] = None
            if known is not None and known.output_key != self._now[source].record.output_key:
                roots.update(dict.fromkeys(above[source]))
        if not roots and len(before.predecessors) != len(sources):
            roots.update(dict.fromkeys(sources))
        return tuple(roots)


def _kinds(reasons: tuple[Reason, ...]) -> str:
    return ", ".join(reason.kind for reason in reasons) or "new here"


def reasons_of(
    names: Iterable[str],
    now: Mapping[str, StepNow],
    pipeline: str,
    history: History,
    at_once: AtOnce,
) -> dict[str, tuple[Reason, ...]]:
    """Why each of these steps has to run.

    Args:
        names: the steps in question.
        now: all steps by name, each after its predecessors.
        pipeline: the pipeline's name.
        history: what is remembered.
        at_once: asks about several steps at the same time.
    """
    wanted = list(names)
    if not wanted:
        return {}
    runs = history.last_runs(pipeline)
    comparison = Comparison(now, runs)
    concerned = [name for name in now if comparison.changed(name)]

    def changes_of(name: str) -> tuple[Reason, ...]:
        before = comparison.before(name)
        assert before is not None
        return compare_functions(history.function_record(before.function), now[name].signed)

    own = dict(zip(concerned, at_once(changes_of, concerned), strict=True))
    for name in now:
        if units := comparison.other_units(name):
            own[name] = (*own.get(name, ()), units)

    def why(name: str) -> tuple[Reason, ...]:
        run = comparison.run_with_it(name)
        if run is None:
            return _reasons(name, comparison, own)
        return (_why_gone(now[name].record.output_key, run, runs, history),)

    return dict(zip(wanted, at_once(why, wanted), strict=True))


def compare_functions(before: FunctionRecord | None, now: StepFunction) -> tuple[Reason, ...]:
    """Why the step function is another one than before."""
    if before is None:
        return (Reason("unknown", "it changed, and what it was before is not stored"),)
    found = function_reasons(before.preimage, now.preimage, before.code, now.code)
    return found or (Reason("unknown", "it is as before, but signed by another version of distill_ray"),)


def _reasons(name: str, comparison: Comparison, own: Mapping[str, tuple[Reason, ...]]) -> tuple[Reason, ...]:
    if comparison.before(name) is None:
        return (Reason("first run", "first run in this pipeline"),)
    above = comparison.upstream(name, own)
    found = (*own.get(name, ()), *((above,) if above else ()))
    return found or (Reason("unknown", "another output of it is stored, not the one that is wanted"),)


def _why_gone(output_key: str, run: RunRecord, runs: LastRuns, history: History) -> Reason:
    """Why an output that a run had is not there."""
    if history.by_unit:
        return Reason("forced", "run(verify=...) looks its rows up one by one, to compute some of them again")
    if history.lacks_rows(run.run, output_key):
        return Reason("failed", f"rows that failed in run {run.run}, here or above, are tried again")
    if run == runs.finished:
        return Reason("removed", f"its output, which run {run.run} finished, is gone")
    return Reason("unfinished", f"run {run.run}, which had it, did not finish it")
