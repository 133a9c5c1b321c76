"""Runs of drafts, checked: their rows against rows worked out afresh, their work against what was missing."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import note

from distill_ray.errors import DistillRayError, StepError
from distill_ray.observe.report import RunReport
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.signature.encode import digest
from distill_ray.steps.signing import step_function
from distill_ray.types import Row
from tests.integration.pipelines_of_edits import SOURCE, Draft, Expected, Failed, declare, expect
from tests.integration.stored_units import StoredUnits, Units, Work, read_work


class CheckedRun:
    """One run of a draft, and what was known before it."""

    def __init__(
        self,
        draft: Draft,
        root: Path,
        log: Path,
        stored: StoredUnits,
        engine: Engine,
        *,
        use_cache: bool,
        verify: float,
    ) -> None:
        self.draft = draft
        self.root = root
        self.log = log
        self.stored = stored
        self.engine = engine
        self.use_cache = use_cache
        self.verify = verify
        self.before = set(self.stored.parts)
        self.damaged = [path for path, part in self.stored.parts.items() if not part.whole]
        self.pipeline = self.declare()
        graph = self.pipeline.graph
        self.functions = {name: step_function(step).signature for name, step in graph.steps.items()}
        self.known = {function: self.stored.of(function) for function in self.functions.values()}
        self.generated = self.stored.generated(self.functions[SOURCE])
        self.nodes = {node.name: node for node in self.draft.nodes}
        self.made: RunReport | None = None
        log.write_text("", encoding="utf-8")

    def declare(self) -> Pipeline:
        return declare(self.draft, self.root, self.log)

    def check(self) -> None:
        rows = self.rows()
        self.stored.look()
        report = self.report()
        failed = failures(report)
        work = self.check_work(failed)
        self.check_stored(work)
        if rows is not None:
            self.check_complete(report, failed)
            expected = expect(self.draft, failed)
            for leaf, found in rows.items():
                name = self.draft.leaves[0] if leaf == "default" else leaf
                assert same(found) == same(expected[name].rows), f"rows of {name}"

    def rows(self) -> dict[str, list[Row]] | None:
        """The rows of each leaf; None: the draft cannot be done, and the run has said so."""
        for _ in range(2 * len(self.damaged) + 1):
            try:
                made = self.declare().run(
                    engine=self.engine, progress="none", use_cache=self.use_cache, verify=self.verify
                )
                self.made = made.report
                return {leaf: splits["train"].to_list() for leaf, splits in made.items()}
            except StepError as error:
                note(f"{error}")
                self.check_error(str(error))
                return None
            except DistillRayError as error:
                note(f"{error}")
                if not self.damaged or "Run again" not in str(error):
                    raise
        raise AssertionError("as many runs as damaged parts did not mend the cache")

    def report(self) -> dict[str, Any]:
        """What the run says of itself, by its record where it failed: a complete hit writes none."""
        if self.made is not None:
            return self.made.model_dump()
        last = max(self.root.glob("runs/*/run.json"), key=lambda path: path.stat().st_mtime_ns)
        found: dict[str, Any] = json.loads(last.read_bytes())
        return found

    def check_error(self, error: str) -> None:
        """A run fails only for a reason that it has."""
        expected = expect(self.draft, failures(self.report()))
        if "joined row by row" in error:
            uncertain = any(node.broken for node in self.draft.nodes)
            assert uncertain or any(each.uneven for each in expected.values())
            return
        assert "cannot do" in error, error
        failing = [
            unit.key
            for node in self.draft.nodes
            if node.on_error == "raise" and node.name in expected
            for unit in expected[node.name].units
            if unit.broken and (self.damaged or self.is_missing(node.name, unit.key, expected))
        ]
        assert failing, f"what cannot be done was stored, but: {error}"

    def is_missing(self, name: str, key: str, expected: dict[str, Expected]) -> bool:
        """Whether not all units of this key were stored that a step is given."""
        if name in self.forced() or self.verify:
            return True
        family = next(group for group in self.groups() if name in group)
        return needed(family, [expected])[key] > self.known[self.functions[name]][key]

    def forced(self) -> set[str]:
        """Steps that are computed anew whatever is stored."""
        found: set[str] = set()
        for node in self.draft.nodes:
            if not self.use_cache or not node.use_cache or found.intersection(node.above):
                found.add(node.name)
        return found

    def groups(self) -> Iterator[list[str]]:
        """Names of steps that share what is stored: the same function, applied to the same."""
        families = {SOURCE: self.functions[SOURCE]}
        found: dict[str, list[str]] = defaultdict(list)
        for node in self.draft.nodes:
            families[node.name] = digest([self.functions[node.name], [families[a] for a in node.above]])
            found[families[node.name]].append(node.name)
        yield from found.values()

    def check_work(self, failed: Failed) -> Work:
        """No unit is computed that is stored, and none twice."""
        work = read_work(self.log, self.draft)
        possible = [expect(self.draft, failed)] + ([expect(self.draft)] if self.damaged else [])
        forced = self.forced()
        repeats = 1 + len(self.damaged)
        for group in self.groups():
            free = [name for name in group if name not in forced]
            for name in group:
                if name in forced or self.verify:
                    self.check_bound([name], work, times(needed([name], possible), repeats))
            if free and not self.verify:
                missing = needed(free, possible) - self.known[self.functions[free[0]]]
                self.check_bound(free, work, missing)
        if self.use_cache and not self.verify and not self.damaged:
            left = 0 if self.generated < 0 else len(self.draft.rows) - self.generated
            assert work.generated <= left, f"the source made {work.generated} rows, {left} were missing"
        return work

    def check_bound(self, names: list[str], work: Work, allowed: Units) -> None:
        done = sum((work.done[name] for name in names), Units())
        begun = sum((work.begun[name] for name in names), Units())
        assert not done - allowed, f"{names} computed again what was stored: {done - allowed}"
        breaks = any(self.nodes[name].broken for name in names)
        tried = times(allowed, 2) if breaks else allowed
        assert not begun - tried, f"{names} tried what was stored: {begun - tried}"

    def check_stored(self, work: Work) -> None:
        """What was computed is stored, whatever became of the run."""
        done: dict[str, Units] = defaultdict(Units)
        for name, units in work.done.items():
            done[self.functions[name]] += units
        for function, units in done.items():
            new = self.stored.of(function, since=self.before)
            if not self.verify and not self.damaged:
                assert not units - new, f"computed, but not stored: {units - new}"

    def check_complete(self, report: dict[str, Any], failed: Failed) -> None:
        """Each step that ran has all its units, and failed only where it had to."""
        expected = expect(self.draft, failed)
        ran = [n for n, step in report["steps"].items() if step["decision"] not in ("hit", "not needed")]
        twins = [group for group in self.groups() if len(group) > 1]
        for name in set(ran) - {SOURCE}:
            assert not expected[name].uneven, f"{name} joined different numbers of rows"
            units = expected[name].units
            fine = Counter(unit.key for unit in units if unit.first_row not in failed.get(name, ()))
            held = self.stored.of(self.functions[name], damaged=True)
            assert not fine - held, f"{name} has not stored {fine - held}"
            assert report["steps"][name]["rows_differing"] == 0
            if any(name in twin for twin in twins) or self.damaged or self.verify:
                continue
            known = Units() if name in self.forced() else self.known[self.functions[name]]
            has_to = Counter(unit.key for unit in units if unit.broken) - known
            did = Counter(unit.key for unit in units if unit.first_row in failed.get(name, ()))
            assert did == has_to, f"{name} failed to do {did} in place of {has_to}"
            assert not did or self.nodes[name].on_error != "raise"


def failures(report: dict[str, Any]) -> dict[str, frozenset[int]]:
    """For each step the first input rows of the units that it failed to do."""
    return {
        name: frozenset(
            int(found[1]) for each in step["failures"] if (found := re.match(r"input rows? (\d+)", each))
        )
        for name, step in report["steps"].items()
    }


def needed(names: list[str], possible: list[dict[str, Expected]]) -> Units:
    """How often steps may be given each unit."""
    units = Units()
    for expected in possible:
        given = (Counter(unit.key for unit in expected[name].units) for name in names if name in expected)
        units |= sum(given, Units())
    return units


def times(units: Units, factor: int) -> Units:
    return Units({key: factor * count for key, count in units.items()})


def same(found: list[Row]) -> list[str]:
    """Rows as texts in which everything counts but the order of their keys."""
    return [repr(sorted(row.items())) for row in found]
