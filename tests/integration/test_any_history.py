"""Whatever becomes of a pipeline and of its cache: the rows are right, and no unit is computed in vain.

Histories are drawn at random: edits of rows, steps and connections, runs, kills, damage, collections. After
each run its rows are compared with rows worked out afresh, and what its steps did with what was missing.

``pytest -m slow tests/integration/test_any_history.py`` draws many more and longer ones, and some on Ray.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from distill_ray.cli.main import main
from distill_ray.engine.scheduling import row_lookup
from distill_ray.pipeline.running import Engine
from distill_ray.types import Row
from tests.damage import cut, flip
from tests.integration.checked_runs import CheckedRun
from tests.integration.killed_runs import run_killed
from tests.integration.pipelines_of_edits import KINDS, SOURCE, Draft, Node, expect
from tests.integration.stored_units import StoredUnits

ODD_VALUES = [None, True, 1, 1.0, "1", "", float("nan"), 2**70, [1, None], {"b": 1, "a": [2.5]}, "\ud800"]

places = st.integers(0, 30)
rows = st.fixed_dictionaries({"n": st.integers(-1, 5)}, optional={"other": st.sampled_from(ODD_VALUES)})
kinds = st.sampled_from(sorted(KINDS))
quiets = st.sampled_from([False, False, False, True])
"""Whether an edit is followed by another event before the pipeline runs."""


def swap(path: Path, others: list[Path]) -> list[Path]:
    """Let two files stand in each other's place; give those that are not what they were."""
    other = others[(others.index(path) + 1) % len(others)]
    mine, its = path.read_bytes(), other.read_bytes()
    path.write_bytes(its)
    other.write_bytes(mine)
    return [path, other] if mine != its else []


DAMAGES: dict[str, Callable[[Path], object]] = {
    "early flip": lambda path: flip(path, min(20, path.stat().st_size - 1)),
    "flip": flip,
    "late flip": lambda path: flip(path, -min(60, path.stat().st_size)),
    "cut": lambda path: cut(path, 20),
    "empty": lambda path: path.write_bytes(b""),
    "delete": Path.unlink,
}

CARE = [
    ["gc", "--grace", "0s"],
    ["gc", "--grace", "0s", "--no-wait"],
    ["gc", "--grace", "1h", "--no-wait"],
    ["compact", "--grace", "0s"],
    ["compact", "--grace", "1h", "--no-wait"],
    ["verify", "--deep"],
    ["gc", "--grace", "0s", "--older-than", "0s"],
    ["gc", "--grace", "0s", "--max-size", "20KB"],
    ["verify", "--deep", "--repair"],
]
HARMLESS = 6
"""So many of these, the first ones, remove nothing that a later run could use."""


class History(RuleBasedStateMachine):
    """A pipeline and its cache."""

    engine: ClassVar[Engine] = "inline"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="history-")
        self.root = Path(self.folder.name, "cache")
        self.log = Path(self.folder.name, "work.log")
        self.stored = StoredUnits(self.root)
        self.draft = Draft((), ())
        self.drafts: list[Draft] = []
        self.names = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(
        data=st.lists(rows, min_size=1, max_size=9),
        of=st.lists(kinds, min_size=1, max_size=3),
        flush_seconds=st.sampled_from(["5", "0.001"]),
    )
    def begin(self, data: list[Row], of: list[str], flush_seconds: str) -> None:
        os.environ["DISTILL_RAY_FLUSH_SECONDS"] = flush_seconds
        self.draft = Draft(tuple(data), ())
        for kind in of:
            self.append(kind, (self.draft.nodes[-1].name if self.draft.nodes else SOURCE,))
        self.run()

    def append(self, kind: str, above: tuple[str, ...], **fields: Any) -> Node:
        self.names += 1
        node = Node(f"{kind.lower()}{self.names}", kind, above, **fields)
        self.draft = self.draft.with_node(node)
        return node

    def node(self, place: int) -> Node:
        return self.draft.nodes[place % len(self.draft.nodes)]

    # Edits.

    @rule(place=places, new=st.lists(rows, min_size=1, max_size=3), quiet=quiets)
    def insert_rows(self, place: int, new: list[Row], quiet: bool) -> None:
        data = list(self.draft.rows)
        at = place % (len(data) + 1)
        self.edit(replace(self.draft, rows=(*data[:at], *new, *data[at:])), quiet)

    @rule(place=places, row=rows, what=st.sampled_from(["delete", "change", "repeat"]), quiet=quiets)
    def edit_row(self, place: int, row: Row, what: str, quiet: bool) -> None:
        data = list(self.draft.rows)
        if data:
            at = place % len(data)
            new = {"delete": [], "change": [row], "repeat": [data[at]] * 2}[what]
            self.edit(replace(self.draft, rows=(*data[:at], *new, *data[at + 1 :])), quiet)

    @rule(seed=places, quiet=quiets)
    def shuffle_rows(self, seed: int, quiet: bool) -> None:
        data = list(self.draft.rows)
        random.Random(seed).shuffle(data)
        self.edit(replace(self.draft, rows=tuple(data)), quiet)

    @rule(column=st.sampled_from(["other", "more"]), value=st.sampled_from(ODD_VALUES), quiet=quiets)
    def set_column(self, column: str, value: Any, quiet: bool) -> None:
        self.edit(replace(self.draft, rows=tuple({**row, column: value} for row in self.draft.rows)), quiet)

    @rule(kind=kinds, parameter=st.integers(0, 2), place=places, between=st.booleans(), quiet=quiets)
    def add_step(self, kind: str, parameter: int, place: int, between: bool, quiet: bool) -> None:
        if len(self.draft.nodes) > 6:
            return
        names = [SOURCE, *(node.name for node in self.draft.nodes)]
        above = names[place % len(names)]
        followers = [node for node in self.draft.nodes if above in node.above and len(node.above) == 1]
        self.names += 1
        node = Node(f"{kind.lower()}{self.names}", kind, (above,), parameter)
        nodes = list(self.draft.nodes)
        nodes.insert(names.index(above), node)
        if between:
            nodes = [replace(each, above=(node.name,)) if each in followers else each for each in nodes]
        self.edit(replace(self.draft, nodes=tuple(nodes)), quiet)

    @rule(kind=st.sampled_from(["Pair", "Total", "Rank"]), place=places, quiet=quiets)
    def join_steps(self, kind: str, place: int, quiet: bool) -> None:
        """Join two steps; most of the time such as give the same number of rows."""
        if len(self.draft.nodes) > 6:
            return
        known = expect(self.draft)
        names = [name for name, expected in known.items() if not expected.uneven]
        pairs = [(a, b) for a in names for b in names if a < b]
        even = [(a, b) for a, b in pairs if len(known[a].rows) == len(known[b].rows)]
        if chosen := even or pairs:
            self.append(kind, chosen[place % len(chosen)])
            self.edit(self.draft, quiet)

    @rule(place=places, quiet=quiets)
    def remove_step(self, place: int, quiet: bool) -> None:
        if len(self.draft.nodes) > 1:
            self.edit(self.draft.without(self.node(place)), quiet)

    @rule(place=places, quiet=quiets)
    def rename_step(self, place: int, quiet: bool) -> None:
        self.names += 1
        self.edit(self.draft.renamed(self.node(place), f"renamed{self.names}"), quiet)

    @rule(name=st.sampled_from(["first", "second"]), quiet=quiets)
    def rename_pipeline(self, name: str, quiet: bool) -> None:
        self.edit(replace(self.draft, name=name), quiet)

    @rule(
        place=places,
        fields=st.fixed_dictionaries(
            {},
            optional={
                "parameter": st.integers(0, 2),
                "size": st.integers(1, 7),
                "replicas": st.integers(1, 2),
            },
        ),
        size=st.integers(1, 7),
        quiet=quiets,
    )
    def edit_step(self, place: int, fields: dict[str, Any], size: int, quiet: bool) -> None:
        at = place % len(self.draft.nodes)
        draft = self.draft.with_node(replace(self.draft.nodes[at], **fields), at=at)
        self.edit(replace(draft, size=draft.size if fields else size), quiet)

    @rule(place=places, use_cache=st.booleans(), quiet=quiets)
    def distrust_step(self, place: int, use_cache: bool, quiet: bool) -> None:
        at = place % len(self.draft.nodes)
        self.edit(self.draft.with_node(replace(self.draft.nodes[at], use_cache=use_cache), at=at), quiet)

    @rule(
        place=places,
        broken=st.sets(st.integers(-1, 5), min_size=1, max_size=3),
        on_error=st.sampled_from(["skip", "null", "raise"]),
        parameter=st.integers(0, 5),
        mended=st.booleans(),
    )
    def break_step(self, place: int, broken: set[int], on_error: Any, parameter: int, mended: bool) -> None:
        """Let a step be unable to do some rows, perhaps for a while; those that are stored it need not do."""
        at = place % len(self.draft.nodes)
        node = replace(self.draft.nodes[at], parameter=parameter)
        fields = {"broken": tuple(sorted(broken)), "on_error": on_error}
        self.edit(self.draft.with_node(replace(node, **fields), at=at), quiet=False)
        if mended:
            self.edit(self.draft.with_node(replace(node, broken=()), at=at), quiet=False)

    @rule(place=places)
    def go_back(self, place: int) -> None:
        self.edit(self.drafts[place % len(self.drafts)], quiet=False)

    def edit(self, draft: Draft, quiet: bool) -> None:
        self.draft = draft
        if not quiet:
            self.run()

    # Runs.

    @rule(use_cache=st.just(True) | st.booleans(), verify=st.sampled_from([0.0, 0.0, 0.5, 1.0]))
    def run(self, use_cache: bool = True, verify: float = 0.0) -> None:
        note(f"{self.draft}")
        self.drafts.append(self.draft)
        draft = self.draft.with_all(broken=()) if verify else self.draft
        self.prepared(draft, use_cache=use_cache, verify=verify).check()

    def prepared(self, draft: Draft, *, use_cache: bool = True, verify: float = 0.0) -> CheckedRun:
        return CheckedRun(
            draft, self.root, self.log, self.stored, self.engine, use_cache=use_cache, verify=verify
        )

    @rule(writes=st.integers(0, 120))
    def kill(self, writes: int) -> None:
        """Another process runs the draft, and is killed; what it cannot do ends it too."""
        self.drafts.append(self.draft)
        draft = self.draft.with_all(on_error="raise")
        run = self.prepared(draft)
        killed = run_killed(draft, self.root, self.log, writes)
        note(f"killed: {killed}")
        self.stored.look()
        run.check_work({})

    # What becomes of the cache.

    @rule(
        what=st.lists(st.tuples(places, st.sampled_from(["swap", *DAMAGES])), min_size=1, max_size=3),
        of=st.sampled_from(["steps/*/parts/*.parquet", "steps/*/parts/*.parquet", "steps/*/outputs/*"]),
        quiet=quiets,
    )
    def damage_rows(self, what: list[tuple[int, str]], of: str, quiet: bool) -> None:
        for place, how in what:
            if files := self.stored.in_order(of):
                path = files[place % len(files)]
                note(f"{how}: {path}")
                self.damage(path, how, files)
        self.stored.look()
        self.edit(self.draft, quiet)

    def damage(self, path: Path, how: str, files: list[Path]) -> None:
        changed = [path]
        if how == "swap":
            changed = swap(path, files)
        else:
            DAMAGES[how](path)
        for each in changed:
            if each in self.stored.parts:
                self.stored.parts[each].whole = False

    @rule(
        place=places,
        of=st.sampled_from(["steps/*/signature.json", "pipelines/**/*", "runs/*/*", "leases/*", "gc/*"]),
        how=st.sampled_from(["flip", "cut", "empty", "delete"]),
    )
    def damage_records(self, place: int, of: str, how: str) -> None:
        """Nothing rests on a record but what a run says of itself."""
        if files := self.stored.in_order(of):
            note(f"{how}: {files[place % len(files)]}")
            DAMAGES[how](files[place % len(files)])

    @rule(which=st.integers(0, len(CARE) - 1))
    def care(self, which: int) -> None:
        before = self.stored.functions
        whole = all(part.whole for part in self.stored.parts.values())
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = main(["cache", *CARE[which], "--cache-dir", str(self.root)])
        note(said.getvalue())
        if CARE[which][0] == "verify" and whole:
            note(f"verify ends with {code}")
        self.stored.look()
        if which < HARMLESS:
            assert self.stored.functions == before


@pytest.fixture(autouse=True)
def scaled_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are many; whoever waits for a dead run waits for four beats."""
    monkeypatch.setattr(row_lookup, "ROWS_AT_ONCE", 4)
    monkeypatch.setenv("DISTILL_RAY_BEAT_SECONDS", "0.05")
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "5")  # a history changes it


FEW = settings(
    max_examples=16,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)
MANY = settings(
    FEW, max_examples=300, stateful_step_count=30, derandomize=False, phases=[*FEW.phases, Phase.shrink]
)


def test_rows_are_right_and_nothing_is_computed_in_vain_whatever_happened() -> None:
    run_state_machine_as_test(History, settings=FEW)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_rows_are_right_after_long_histories() -> None:
    run_state_machine_as_test(History, settings=MANY)


class HistoryOnRay(History):
    engine = "ray"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("local_ray")
def test_rows_are_right_on_ray() -> None:
    run_state_machine_as_test(HistoryOnRay, settings=FEW)
