"""Explains a plan at length: compares code, data and stored units, which `make_plan` has no time for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from distill_ray.cache import paths
from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.paths import FunctionId, function_in, safe_name
from distill_ray.cache.records import FunctionRecord, StepRecord
from distill_ray.cache.rows import DIGEST_SIZE, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.engine.working.calls import process_rows
from distill_ray.explain.comparison import Comparison, compare_functions
from distill_ray.explain.data import SourceRows, compare_data, source_rows
from distill_ray.explain.difference import code_pieces
from distill_ray.explain.explanation import DataChange, Explanation, Reuse, StepExplanation
from distill_ray.explain.reason import Reason
from distill_ray.explain.reuse import reuse_at_most, reuse_of_output, reuse_of_units
from distill_ray.explain.stored import RowReader, stored_digests
from distill_ray.graph.streams import is_given_some
from distill_ray.plan import Plan, StepPlan
from distill_ray.steps.base import Step, is_row_wise, label_of
from distill_ray.steps.declared import declared_columns, handed
from distill_ray.steps.tasks.parts import RequestRows
from distill_ray.types import RowFailure

NEAREST: Final = 20
"""Functions of a class that are looked at to find the nearest one."""

RENDERED: Final = 10_000
"""Rows of which the requests of a task are rendered, to see whether they were asked before."""

_log = logging.getLogger(__name__)


def explain_plan(plan: Plan, store: CacheStore, step: str | None = None) -> Explanation:
    """Explain all steps of a plan, or one with the parts that it was taken apart into.

    Raises:
        ParameterError: there is no such step.
    """
    steps = plan.steps if step is None else plan.parts_of(step)
    explaining = _Explaining(plan, store)
    return Explanation(plan.pipeline, tuple(explaining.step(each) for each in steps))


class _Explaining:
    def __init__(self, plan: Plan, store: CacheStore) -> None:
        self._plan = plan
        self._store = store
        self._catalog = StoreCatalog(store)
        self._comparison = Comparison(plan.now, self._catalog.last_runs(plan.pipeline))
        self._digests: dict[str, bytes | None] = {}

    def step(self, step: StepPlan) -> StepExplanation:
        signed = self._plan.functions[step.name]
        explained = StepExplanation(
            step.name,
            step.decision,
            step.reason,
            step.reasons,
            reuse=self._reuse(step),
            blind_spots=signed.blind_spots,
        )
        if not step.runs:
            return explained
        before = self._comparison.before(step.name)
        if before is None:
            return self._beside_nearest(step, explained)
        run = self._comparison.run_before(step.name)
        assert run is not None
        explained = replace(explained, compared_with=f"run {run.run} of this pipeline")
        if before.function == step.function:
            return explained
        explained = self._with_code(explained, self._catalog.function_record(before.function))
        return self._with_data(explained, before)

    def _beside_nearest(self, step: StepPlan, explained: StepExplanation) -> StepExplanation:
        """Nothing is known of it in this pipeline: compare it with what others stored of its class."""
        nearest = self._nearest(step)
        if nearest is None:
            return explained
        function, reasons = nearest
        if function == step.function:
            return replace(explained, compared_with="what others stored of this very function")
        told = f"the nearest function of class {function.class_name} on this root, {function.signature[:12]}"
        explained = replace(explained, reasons=(*step.reasons, *reasons), compared_with=told)
        return self._with_code(explained, self._catalog.function_record(function))

    def _nearest(self, step: StepPlan) -> tuple[FunctionId, tuple[Reason, ...]] | None:
        prefix = f"{safe_name(step.function.class_name)}-"
        folders = [
            name for name in self._store.storage.folders(paths.STEPS_FOLDER) if name.startswith(prefix)
        ]
        functions = [found for name in folders if (found := function_in(name)) is not None]
        if step.function in functions:
            return step.function, ()
        signed = self._plan.functions[step.name]
        compared = [
            (function, compare_functions(record, signed))
            for function in functions[:NEAREST]
            if (record := self._catalog.function_record(function)) is not None
        ]
        return min(compared, key=lambda found: sum(len(r.changes) for r in found[1]), default=None)

    def _with_code(self, explained: StepExplanation, before: FunctionRecord | None) -> StepExplanation:
        if before is None or not any(reason.kind == "code" for reason in explained.reasons):
            return explained
        code = self._plan.functions[explained.step].code
        return replace(explained, code=code_pieces(before.code, code))

    def _with_data(self, explained: StepExplanation, before: StepRecord) -> StepExplanation:
        if not any(reason.kind == "data" for reason in explained.reasons):
            return explained
        data, note = self._data(explained.step, before)
        return replace(explained, data=data, data_note=note)

    def _data(self, name: str, before: StepRecord) -> tuple[DataChange | None, str]:
        rows, note = source_rows(self._plan.graph.steps[name])
        if rows is None:
            return None, note
        manifest, distrust = self._catalog.manifest(before.function, before.output_key)
        if manifest is None:
            return None, f"not compared: {distrust or 'its output before is not stored'}"
        data = compare_data(self._store, manifest, rows)
        return data, "" if data else "not compared: the footers of its output before cannot be read"

    # What will be found.

    def _reuse(self, step: StepPlan) -> Reuse:
        if step.manifest is not None:
            return reuse_of_output(step.manifest)
        if not step.runs:
            return Reuse("unknown")
        made = self._plan.graph.steps[step.name]
        sources = self._plan.graph.predecessors(step.name)
        if is_given_some(self._plan.graph, step.name):
            return reuse_at_most(step.indexes, None) if step.indexes else Reuse("unknown")
        digests = {source: self._digests_of(source) for source in sources}
        inputs = [each for each in digests.values() if each is not None]
        if not isinstance(made, Step) or len(inputs) < len(sources):
            if step.decision == "resume":
                return reuse_at_most(step.indexes, step.input_rows)
            return Reuse("exact", input_rows=step.input_rows, input_rows_to_compute=step.input_rows)
        declared = self._declared_digests(made, sources)
        return reuse_of_units(made, inputs, declared, step.indexes, step.taken)

    def _digests_of(self, name: str) -> bytes | None:
        """The digests of the rows that a step will give, where that is known before the run."""
        if name not in self._digests:
            self._digests[name] = self._find_digests(name)
        return self._digests[name]

    def _find_digests(self, name: str) -> bytes | None:
        manifest, step = self._plan[name].manifest, self._plan.graph.steps[name]
        if manifest is not None:
            return stored_digests(self._store, manifest)
        if isinstance(step, RequestRows):
            return self._render(step, self._plan.graph.predecessors(name)[0])
        rows = self._rows_of(name)
        return rows.digests() if rows else None

    def _render(self, step: RequestRows, source: str) -> bytes | None:
        """The digests of the requests of a task: whether they are stored decides what the model is asked."""
        digests, manifest = self._digests_of(source), self._plan[source].manifest
        if digests is None or len(digests) > RENDERED * DIGEST_SIZE:
            return None
        count, declared = len(digests) // DIGEST_SIZE, frozenset(declared_columns(step))
        given = (
            RowReader(self._store).of_output(manifest, range(count)) if manifest else self._rows_of(source)
        )
        try:
            step.load()
            made = process_rows(step, [handed(given or (), declared)])
        except Exception as error:
            _log.warning("Cannot tell what step '%s' will find: rendering raised %r", label_of(step), error)
            return None
        if any(isinstance(rows, RowFailure) for rows in made):
            return None
        return row_digests([row for rows in made if not isinstance(rows, RowFailure) for row in rows])

    def _rows_of(self, name: str) -> SourceRows | None:
        """The rows of a source that runs, where they are at hand."""
        if self._plan[name].manifest is not None:
            return None
        return source_rows(self._plan.graph.steps[name])[0]

    def _declared_digests(self, step: Step, sources: Sequence[str]) -> bytes | None:
        """Those of the columns that a row-wise step is handed, where the rows are at hand."""
        if isinstance(self._plan.graph.steps[sources[0]], RequestRows):
            return self._digests_of(sources[0])  # all the columns that it gives are declared
        rows = self._rows_of(sources[0]) if is_row_wise(step) else None
        return rows.digests(declared_columns(step)) if rows else None
