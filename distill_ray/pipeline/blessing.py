"""Tries a step's new code on what its old code computed, and lets it take over the old outputs.

A refactoring gives a step another signature, and nothing that was stored is found any more. Here the new code
is run, in this process, on some inputs whose outputs are stored. Where it gives the same rows, or the user
says so, an alias in the root's settings lets the new function use the old one's outputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Final, TypeAlias

from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.manifest import Manifest
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.records import RunRecord, StepRecord
from distill_ray.cache.root_settings import add_alias
from distill_ray.cache.rows import DIGEST_SIZE, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.units import StoredRows, StoredUnits, end_key
from distill_ray.errors import ParameterError
from distill_ray.explain.comparison import Comparison, compare_functions
from distill_ray.explain.difference import CodePiece, code_pieces
from distill_ray.explain.reason import Reason
from distill_ray.explain.stored import RowReader, stored_digests
from distill_ray.explain.unit_lookup import InputUnit, find_units, units_of
from distill_ray.graph import Graph
from distill_ray.graph.streams import is_given_some
from distill_ray.pipeline.running import RunRequest, run
from distill_ray.plan import Plan
from distill_ray.signature.compare import MISSING
from distill_ray.steps.base import ACTIVE_REGISTRY, BaseStep, GeneratorStep, Step, is_row_wise, label_of
from distill_ray.steps.loaders.dicts import LoadDataFromDicts
from distill_ray.types import Row

SAMPLES: Final = 10
"""Units that are tried where the user does not say how many."""

CANDIDATES: Final = 100
"""Units that are looked up for each that is tried: rows of a large output are not all looked up."""


Units: TypeAlias = list[list[Row]]
"""The rows of each unit that is tried."""


@dataclass(frozen=True)
class RowDifference:
    """A row that came out differently.

    Attributes:
        unit: the number of its unit among those that were tried.
        row: its number among the unit's rows.
        old: the columns that differ, as they are stored; None: there is no such row.
        new: the same as the new code gave them; None: it did not give the row.
    """

    unit: int
    row: int
    old: Row | None
    new: Row | None


@dataclass(frozen=True)
class Trial:
    """What came of new code on stored inputs.

    Attributes:
        step: the step's name.
        old: the function whose outputs are stored.
        new: the signature of the step as it is now.
        code: the pieces of code that changed.
        units: how many units were tried.
        rows: how many rows are stored of them.
        differences: the rows that came out differently.
        asks_model: the step asks a model, whose answers may differ although its code does not.
    """

    step: str
    old: FunctionId
    new: str
    code: tuple[CodePiece, ...]
    units: int
    rows: int
    differences: tuple[RowDifference, ...]
    asks_model: bool


def try_new_code(plan: Plan, store: CacheStore, step: str, samples: int = SAMPLES) -> tuple[Trial, ...]:
    """Run the new code of a step, or of the parts that a task is taken apart into, on stored inputs.

    Args:
        plan: what a run would do.
        store: the cache.
        step: the step's name.
        samples: units to try, of each part.

    Raises:
        ParameterError: there is no such step, more than its code changed, or nothing is stored to compare.
        StepError: the new code raised.
    """
    names = [each.name for each in plan.parts_of(step)]
    trying = _Trying(plan, store, samples)
    changed = [name for name in names if trying.comparison.changed(name)]
    if not changed:
        raise ParameterError(
            f"The code of step '{step}' is as in the last run of this pipeline that finished, or there was "
            "none: there is nothing to bless. `distill-ray explain` says why a step would run."
        )
    return tuple(trying.trial(name) for name in changed)


def bless(store: CacheStore, trials: Sequence[Trial]) -> None:
    """Let each new function use, and add to, what the old one computed.

    Raises:
        StorageError: the root's settings cannot be written.
    """
    for trial in trials:
        add_alias(store.home or store.storage, trial.new, trial.old.signature)


class _Trying:
    def __init__(self, plan: Plan, store: CacheStore, samples: int) -> None:
        self._plan = plan
        self._store = store
        self._samples = samples
        self._catalog = StoreCatalog(store)
        self.comparison = Comparison(plan.now, self._catalog.last_runs(plan.pipeline))

    def trial(self, name: str) -> Trial:
        step = self._plan.graph.steps[name]
        before, run_before = self.comparison.before(name), self.comparison.run_before(name)
        assert before is not None
        assert run_before is not None
        code = self._code(name, before)
        output = self._output(name, before)
        if isinstance(step, GeneratorStep):
            old, new = self._first_rows(step, output)
        else:
            assert isinstance(step, Step)
            self._check_input_known(name, step, before)
            inputs = [self._input(name, source, run_before) for source in before.predecessors]
            old, new = self._sampled_rows(step, before, inputs)
        return Trial(
            step=name,
            old=before.function,
            new=self._plan.functions[name].signature,
            code=code,
            units=len(old),
            rows=sum(map(len, old)),
            differences=tuple(_differences(old, new)),
            asks_model=getattr(step, "llm", None) is not None,
        )

    def _check_input_known(self, name: str, step: Step, before: StepRecord) -> None:
        """Refuse a step of which it is not known which rows it was given together: some were routed."""
        together = len(before.predecessors) > 1 or not is_row_wise(step)
        if together and is_given_some(self._plan.graph, name):
            raise ParameterError(
                f"Step '{name}' is given batches that are routed: it is not known which of the stored rows "
                "it was given together, so its new code cannot be tried on them. A run computes it."
            )

    def _first_rows(self, step: GeneratorStep, output: Manifest) -> tuple[Units, Units]:
        """The first batches of a generator, as they are stored and as the new code makes them."""
        new, ended = _make_anew(step, self._samples)
        # Where it ends too early, the next stored rows are told to be missing.
        wanted = min(output.rows, len(new) + (step.batch_size if ended else 0))
        old = RowReader(self._store).of_output(output, range(wanted))
        starts = range(0, max(len(old), len(new)), step.batch_size)
        return (
            [old[start : start + step.batch_size] for start in starts],
            [new[start : start + step.batch_size] for start in starts],
        )

    def _sampled_rows(
        self, step: Step, before: StepRecord, inputs: Sequence[tuple[Manifest, bytes]]
    ) -> tuple[Units, Units]:
        """What is stored of some units, and what the new code makes of them."""
        sampled = self._sampled(step, before, [digests for _, digests in inputs])
        if not sampled:
            raise ParameterError(
                f"Nothing that is stored of step '{label_of(step)}' was made from its input as it is divided "
                f"now: set `input_batch_size` (now {step.input_batch_size}) and `row_wise` to what they were."
            )
        reader = RowReader(self._store)
        given = [
            [row for unit, _ in sampled for row in reader.of_output(manifest, unit.rows[number])]
            for number, (manifest, _) in enumerate(inputs)
        ]
        old = [reader.of_part(before.function, s.part.name, s.first_row, s.rows) for _, s in sampled]
        return old, _run_anew(step, given)

    def _code(self, name: str, before: StepRecord) -> tuple[CodePiece, ...]:
        """What changed in the code, which must be all that changed."""
        record, signed = self._catalog.function_record(before.function), self._plan.functions[name]
        reasons = compare_functions(record, signed)
        others = [str(reason) for reason in reasons if not _is_code(reason)]
        if record is None or others:
            raise ParameterError(
                f"Step '{name}' cannot be blessed, since more than its code changed: {'; '.join(others)}. "
                "What is computed with other parameters is another output."
            )
        return code_pieces(record.code, signed.code)

    def _output(self, name: str, record: StepRecord) -> Manifest:
        manifest, distrust = self._catalog.manifest(record.function, record.output_key)
        if manifest is None:
            raise ParameterError(
                f"The output of step '{name}' in the last run that finished is not stored any more"
                f"{f' ({distrust})' if distrust else ''}: there is nothing to compare with."
            )
        return manifest

    def _input(self, name: str, source: str, run_before: RunRecord) -> tuple[Manifest, bytes]:
        """A predecessor's output, and the digests of its rows."""
        manifest = self._output(source, run_before.steps[source])
        digests = stored_digests(self._store, manifest)
        if digests is None:
            raise ParameterError(
                f"The output of step '{source}' is damaged: there is nothing to try step '{name}' on."
            )
        return manifest, digests

    def _sampled(
        self, step: Step, before: StepRecord, digests: Sequence[bytes]
    ) -> list[tuple[InputUnit, StoredRows]]:
        """Some units of which an output is stored, spread over all of them."""
        stored = StoredUnits(self._catalog.indexes(before.function), limit=step.output_limit)
        size = 1 if is_row_wise(step) else step.input_batch_size
        rows = len(digests[0]) // DIGEST_SIZE
        every = max(1, rows // (size * self._samples * CANDIDATES))
        units = list(islice(units_of(step, digests), 0, None, every))
        found = [
            (unit, rows)
            for unit, rows in zip(units, find_units(units, stored), strict=True)
            if rows is not None
        ]
        count = min(self._samples, len(found))
        return [found[number * (len(found) - 1) // max(count - 1, 1)] for number in range(count)]


def _is_code(reason: Reason) -> bool:
    """Whether it is code that changed; a parameter that is new or gone belongs to it."""
    added_or_gone = all(MISSING in (change.old, change.new) for change in reason.changes)
    return reason.kind == "code" or (reason.kind == "config" and added_or_gone)


def _run_anew(step: Step, inputs: Sequence[list[Row]]) -> Units:
    """Run a step on these rows, in a cache of its own, and give what came of each unit."""
    name = label_of(step)  # which may stand in its rows
    token = ACTIVE_REGISTRY.set(None)  # the steps belong to this run alone
    try:
        sources: dict[str, BaseStep] = {
            source: LoadDataFromDicts(name=source, data=rows)
            for source, rows in ((f"{name}/input {number}", rows) for number, rows in enumerate(inputs))
        }
    finally:
        ACTIVE_REGISTRY.reset(token)
    alone = step.model_copy(update={"on_error": "raise", "use_cache": True, "pipeline": None})
    graph = Graph.of({**sources, name: alone}, {**dict.fromkeys(sources, ()), name: tuple(sources)})
    with tempfile.TemporaryDirectory(prefix="distill_ray-bless-") as folder:
        result = run(RunRequest(None, graph, cache_dir=folder, engine="inline"))
        function = result.plan[name].function
        stored = StoredUnits(StoreCatalog(result.store).indexes(function), limit=alone.output_limit)
        reader = RowReader(result.store)
        units = list(units_of(alone, [row_digests(rows) for rows in inputs]))
        return [
            reader.of_part(function, rows.part.name, rows.first_row, rows.rows) if rows else []
            for rows in find_units(units, stored)
        ]


def _make_anew(step: GeneratorStep, batches: int) -> tuple[list[Row], bool]:
    """Run a generator for some batches, in a cache of its own; give its rows, and whether it has ended."""
    name = label_of(step)
    alone = step.model_copy(update={"use_cache": True, "pipeline": None})
    graph = Graph.of({name: alone}, {name: ()})
    with tempfile.TemporaryDirectory(prefix="distill_ray-bless-") as folder:
        request = RunRequest(None, graph, cache_dir=folder, engine="inline", max_batches=batches)
        result = run(request)
        output = result.leaves[name]
        stored = StoredUnits(StoreCatalog(result.store).indexes(output.function))
        ended = stored.take(end_key(output.rows)) is not None
        return RowReader(result.store).of_output(output, range(output.rows)), ended


def _differences(old: Units, new: Units) -> Iterator[RowDifference]:
    """Row by row and column by column."""
    for unit, (before, now) in enumerate(zip(old, new, strict=True)):
        for number, (old_row, new_row) in enumerate(zip_longest(before, now)):
            if old_row is None or new_row is None:
                yield RowDifference(unit, number, old_row, new_row)
            elif row_digests([old_row]) != row_digests([new_row]):
                names = [
                    name
                    for name in dict.fromkeys([*old_row, *new_row])
                    if row_digests([_only(old_row, name)]) != row_digests([_only(new_row, name)])
                ]
                yield RowDifference(unit, number, _only(old_row, *names), _only(new_row, *names))


def _only(row: Row, *names: str) -> Row:
    return {name: row[name] for name in names if name in row}
