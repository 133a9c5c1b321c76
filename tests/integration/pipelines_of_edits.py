"""Pipelines that are edited again and again; what they must give and what that may take, worked out afresh.

A `Draft` says what a pipeline looks like. `declare` makes it, `expect` works out its rows and units without
any engine, from the same functions. Each step appends to a file which rows it is given and which it has done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill_ray.cache.rows import row_digests
from distill_ray.cache.units import batch_key, column_digests, row_keys
from distill_ray.pipeline import Pipeline
from distill_ray.resources import StepResources
from distill_ray.steps import GlobalStep, LoadDataFromDicts, Step, StepInput, StepOutput
from distill_ray.steps.base import OnError
from distill_ray.types import Batch, GeneratorStepOutput, Row

SOURCE = "source"


def note(log: str, step: str, what: str, rows: Any) -> None:
    """Append a line in one call, so that those of several processes do not mix."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, json.dumps([step, what, rows]).encode() + b"\n")
    os.close(descriptor)


def number(row: Row) -> int:
    value = row.get("n")
    return value if isinstance(value, int) else 0


class Noted(Step):
    """Writes down what it does.

    Attributes:
        parameter: what it does depends on it.
        log: where it writes.
        broken: numbers that it cannot do.
    """

    parameter: int = 1
    log: str = ""
    broken: tuple[int, ...] = ()
    exclude_from_signature: frozenset[str] = frozenset({"log", "broken"})

    @property
    def inputs(self) -> dict[str, bool]:
        return {"n": False}

    def process(self, *inputs: StepInput) -> StepOutput:
        rows = [list(map(dict, each)) for each in inputs]
        note(self.log, str(self.name), "begun", rows)
        if found := [number(row) for row in inputs[0] if number(row) in self.broken]:
            raise ValueError(f"cannot do {found[0]}")
        yield from self.give(inputs)
        note(self.log, str(self.name), "done", rows)

    def give(self, inputs: Sequence[Batch]) -> Iterator[Batch]:
        raise NotImplementedError


class RowWise(Noted):
    row_wise = True

    def give(self, inputs: Sequence[Batch]) -> Iterator[Batch]:
        for rows in zip(*inputs, strict=True):
            yield self.one(self.parameter, *rows)

    @staticmethod
    def one(parameter: int, row: Row, *others: Row) -> Batch:
        raise NotImplementedError


class Whole(Noted):
    def give(self, inputs: Sequence[Batch]) -> Iterator[Batch]:
        yield self.all(self.parameter, *inputs)

    @staticmethod
    def all(parameter: int, rows: Batch, *others: Batch) -> Batch:
        raise NotImplementedError


class Times(RowWise):
    """Adds a column."""

    @property
    def outputs(self) -> list[str]:
        return ["times"]

    @staticmethod
    def one(parameter: int, row: Row, *others: Row) -> Batch:
        return [{**row, "times": number(row) * parameter}]


class Add(RowWise):
    """Changes the column that it reads."""

    @property
    def outputs(self) -> list[str]:
        return ["n"]

    @staticmethod
    def one(parameter: int, row: Row, *others: Row) -> Batch:
        return [{**row, "n": number(row) + parameter}]


class Keep(RowWise):
    """Leaves rows out."""

    @staticmethod
    def one(parameter: int, row: Row, *others: Row) -> Batch:
        return [row] if number(row) % (parameter + 1) == 0 else []


class Spread(RowWise):
    """Gives several rows, and not all that it reads."""

    @property
    def outputs(self) -> list[str]:
        return ["k"]

    @staticmethod
    def one(parameter: int, row: Row, *others: Row) -> Batch:
        return [{"n": number(row) + k, "k": k} for k in range((number(row) + parameter) % 3)]


class Tag(RowWise):
    """Reads two columns, one of which rows may lack."""

    @property
    def inputs(self) -> dict[str, bool]:
        return {"n": False, "other": False}

    @property
    def outputs(self) -> list[str]:
        return ["tag"]

    @staticmethod
    def one(parameter: int, row: Row, *others: Row) -> Batch:
        return [{**row, "tag": f"{parameter} {row.get('n')!r} {row.get('other', 'none')!r}"}]


class Pair(RowWise):
    """Reads the rows of several steps side by side."""

    @property
    def outputs(self) -> list[str]:
        return ["pair"]

    @staticmethod
    def one(parameter: int, row: Row, *others: Row) -> Batch:
        return [{**row, "pair": [number(each) + parameter for each in (row, *others)]}]


class Alone(RowWise):
    """Gives only what it makes itself."""

    joins_input = False

    @property
    def outputs(self) -> list[str]:
        return ["n", "alone"]

    @staticmethod
    def one(parameter: int, row: Row, *others: Row) -> Batch:
        return [{"n": number(row), "alone": parameter}]


class Plain(Whole):
    """Looks at rows one by one, but does not say so."""

    @staticmethod
    def all(parameter: int, rows: Batch, *others: Batch) -> Batch:
        return [{**row, "plain": number(row) - parameter} for row in rows]


class Total(Whole):
    """Gives what depends on the whole batch, of all steps before it."""

    @property
    def outputs(self) -> list[str]:
        return ["total"]

    @staticmethod
    def all(parameter: int, rows: Batch, *others: Batch) -> Batch:
        total = parameter * sum(number(row) for batch in (rows, *others) for row in batch)
        return [{**row, "total": total} for row in rows]


class First(Whole):
    """Keeps some rows of each batch."""

    @staticmethod
    def all(parameter: int, rows: Batch, *others: Batch) -> Batch:
        return rows[:parameter]


class Rank(GlobalStep, Whole):
    """Sorts everything."""

    @staticmethod
    def all(parameter: int, rows: Batch, *others: Batch) -> Batch:
        ordered = sorted(rows, key=number, reverse=parameter % 2 == 0)
        return [{**row, "rank": place} for place, row in enumerate(ordered)]


class Source(LoadDataFromDicts):
    """Writes down the offsets that it is asked for."""

    log: str = ""
    exclude_from_signature: frozenset[str] = frozenset({"log"})

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for rows, last in super().process(offset):
            note(self.log, str(self.name), "done", [offset, len(rows)])
            offset += len(rows)
            yield rows, last


KINDS: dict[str, type[RowWise | Whole]] = {
    kind.__name__: kind for kind in (Times, Add, Keep, Spread, Tag, Pair, Alone, Plain, Total, First, Rank)
}


@dataclass(frozen=True)
class Node:
    """A step of a draft; ``above`` names the steps that it follows."""

    name: str
    kind: str
    above: tuple[str, ...]
    parameter: int = 1
    size: int = 3
    replicas: int = 1
    use_cache: bool = True
    on_error: OnError = "raise"
    broken: tuple[int, ...] = ()

    @property
    def row_wise(self) -> bool:
        """Whether its units are rows."""
        return issubclass(KINDS[self.kind], RowWise)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it declares."""
        return tuple(KINDS[self.kind].model_construct().inputs)


@dataclass(frozen=True)
class Draft:
    """What a pipeline looks like; each node stands after those that it follows."""

    rows: tuple[Row, ...]
    nodes: tuple[Node, ...]
    name: str = "first"
    size: int = 4

    @property
    def leaves(self) -> list[str]:
        """Names of the steps whose rows a run gives."""
        followed = {name for node in self.nodes for name in node.above}
        return [node.name for node in self.nodes if node.name not in followed]

    def with_node(self, node: Node, *, at: int | None = None) -> Draft:
        """The draft with one more node, or with another one in the place of one."""
        nodes = list(self.nodes)
        nodes[len(nodes) if at is None else at : len(nodes) if at is None else at + 1] = [node]
        return replace(self, nodes=tuple(nodes))

    def with_all(self, **fields: Any) -> Draft:
        """The draft with some fields of all nodes changed."""
        return replace(self, nodes=tuple(replace(node, **fields) for node in self.nodes))

    def without(self, gone: Node) -> Draft:
        """The draft without a node: what followed it follows what stood above it."""
        kept = (
            replace(node, above=_distinct(node.above, gone.name, gone.above[:1]))
            for node in self.nodes
            if node is not gone
        )
        return replace(self, nodes=tuple(kept))

    def renamed(self, node: Node, name: str) -> Draft:
        """The draft with another name for a node."""
        nodes = (
            replace(
                each,
                name=name if each is node else each.name,
                above=_distinct(each.above, node.name, (name,)),
            )
            for each in self.nodes
        )
        return replace(self, nodes=tuple(nodes))


def _distinct(names: tuple[str, ...], one: str, others: tuple[str, ...]) -> tuple[str, ...]:
    """Names, with others in the place of one; none twice."""
    return tuple(dict.fromkeys(new for name in names for new in (others if name == one else (name,))))


def declare(draft: Draft, root: Path, log: Path) -> Pipeline:
    """Make the pipeline that a draft describes."""
    with Pipeline(name=draft.name, cache_dir=str(root)) as pipeline:
        steps: dict[str, Any] = {
            SOURCE: Source(name=SOURCE, data=list(draft.rows), batch_size=draft.size, log=str(log))
        }
        for node in draft.nodes:
            steps[node.name] = KINDS[node.kind](
                name=node.name,
                parameter=node.parameter,
                log=str(log),
                broken=node.broken,
                input_batch_size=node.size,
                use_cache=node.use_cache,
                on_error=node.on_error,
                resources=StepResources(replicas=node.replicas, cpus=0.1),
            )
            for above in node.above:
                steps[above] >> steps[node.name]
    return pipeline


@dataclass(frozen=True)
class Unit:
    """Rows that a step is given, and that what it gives for is found by; some it cannot do."""

    key: str
    first_row: int
    broken: bool


@dataclass
class Expected:
    """What becomes of a step.

    Attributes:
        units: what it is given, in order.
        rows: what it gives.
        uneven: it joins steps that give different numbers of rows, which no run can do.
    """

    units: list[Unit] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    uneven: bool = False


Failed = Mapping[str, frozenset[int]]
"""For each step the input rows that it failed to do."""


def expect(draft: Draft, failed: Failed | None = None) -> dict[str, Expected]:
    """Work out what each step is given and gives; what follows an uneven join is left out."""
    known = {SOURCE: Expected(rows=list(draft.rows))}
    for node in draft.nodes:
        if all(name in known and not known[name].uneven for name in node.above):
            inputs = [known[name].rows for name in node.above]
            known[node.name] = _expected(node, inputs, (failed or {}).get(node.name, frozenset()))
    return known


def _expected(node: Node, inputs: Sequence[Batch], failed: frozenset[int]) -> Expected:
    total = min(map(len, inputs))
    expected = Expected(uneven=max(map(len, inputs)) != total)
    step = KINDS[node.kind]
    size = 1 if node.row_wise else max(total, 1) if issubclass(step, GlobalStep) else node.size
    for start in range(0, total, size):
        given = [rows[start : min(start + size, total)] for rows in inputs]
        broken = any(number(row) in node.broken for row in given[0])
        expected.units.append(Unit(unit_key(node, given), start, broken))
        if start in failed:
            expected.rows += _nulls(step, given[0]) if node.on_error == "null" else []
        elif issubclass(step, RowWise):
            expected.rows += _joined(node, step, *(rows[0] for rows in given))
        else:
            expected.rows += step.all(node.parameter, *given)
    return expected


def _nulls(step: type[RowWise | Whole], given: Batch) -> Batch:
    nulls = dict.fromkeys(step.model_construct().outputs)
    return [{**row, **nulls} if step.joins_input else nulls for row in given]


def _joined(node: Node, step: type[RowWise], row: Row, *others: Row) -> Batch:
    handed = {name: value for name, value in row.items() if name in node.columns}
    rest = {name: value for name, value in row.items() if name not in node.columns and step.joins_input}
    return [{**rest, **own} for own in step.one(node.parameter, handed, *others)]


def unit_key(node: Node, given: Sequence[Batch]) -> str:
    """The key under which what a step gives for these rows is stored."""
    if node.row_wise:
        first, *others = given
        key = row_keys(column_digests(first, node.columns), [(row_digests(rows), 1) for rows in others])
    else:
        key = batch_key([row_digests(rows) for rows in given])
    return key.hex()
