"""What a row-wise step computes again when rows, columns or batches change: the rows that changed, no others.

Every step here writes each row it computes to a file, so that the tests count real work.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_ray.distiset import Distiset
from distill_ray.errors import ParameterError, StepError
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import GlobalStep, LoadDataFromDicts, Step, StepInput, StepOutput
from distill_ray.steps.base import OnError
from distill_ray.types import METADATA
from tests.damage import flip

Rows = list[dict[str, Any]]


class RowWise(Step):
    """``log`` is a file that each computed row is appended to."""

    log: str
    row_wise = True
    exclude_from_signature: frozenset[str] = frozenset({"log"})

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    def note(self, rows: Rows) -> None:
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.writelines(f"{self.name} {row['n']}\n" for row in rows)


class Square(RowWise):
    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        yield [{**row, "square": row["n"] ** 2} for row in inputs]


class Scale(RowWise):
    """Gives the same whatever the remark is."""

    remark: str = ""

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        yield [dict(row) for row in inputs]


class Anew(Scale):
    use_cache: bool = False


class Sample(RowWise):
    """Gives something else each time it is asked, as a model does."""

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        yield [{**row, "sample": random.random()} for row in inputs]


class Even(RowWise):
    """Keeps even numbers."""

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        yield [row for row in inputs if row["n"] % 2 == 0]


class Repeat(RowWise):
    """As many rows as the number says."""

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        for row in inputs:
            yield [{"n": row["n"], "k": k} for k in range(row["n"] % 3)]


class Tells(RowWise):
    """Writes metadata of its own, and replaces the column it reads."""

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        yield [{"n": -row["n"], METADATA: {"told": row["n"]}} for row in inputs]


class Odd(RowWise):
    """Cannot do odd numbers."""

    at: int = 1
    exclude_from_signature: frozenset[str] = frozenset({"log", "at"})

    @property
    def outputs(self) -> list[str]:
        return ["half"]

    def process(self, inputs: StepInput) -> StepOutput:
        self.note(inputs)
        for row in inputs:
            if row["n"] % 2 == self.at:
                raise ValueError(f"{row['n']} is odd")
            yield [{**row, "half": row["n"] // 2}]


class Peeks(RowWise):
    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "peeked": row.get("other")} for row in inputs]


class Lab:
    """Runs pipelines of a loader and a chain of row-wise steps, and counts what was computed."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.log = folder / "work.log"

    def run(
        self,
        data: Rows,
        *kinds: type[RowWise],
        size: int = 50,
        fields: dict[str, Any] | None = None,
        **options: Any,
    ) -> tuple[Distiset, Counter[str]]:
        """Return the rows, and how many each step really computed; ``fields`` go to steps that have them."""
        self.log.write_text("", encoding="utf-8")
        with Pipeline(name="lab", enable_metadata=True) as pipeline:
            last: Any = LoadDataFromDicts(name="load", data=data, batch_size=37)
            for kind in kinds:
                given = {name: value for name, value in (fields or {}).items() if name in kind.model_fields}
                name = kind.__name__.lower()
                last = last >> kind(name=name, log=str(self.log), input_batch_size=size, **given)
        distiset = pipeline.run(engine=self.engine, **options)
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return distiset, Counter(line.split()[0] for line in lines)


@pytest.fixture
def lab(engine: Engine, tmp_path: Path) -> Lab:
    return Lab(engine, tmp_path)


def rows_of(distiset: Distiset) -> Rows:
    return distiset["default"]["train"].to_list()


def numbers(count: int, **columns: Any) -> Rows:
    return [{"n": n, **columns} for n in range(count)]


def squares(data: Rows) -> Rows:
    return [{**row, "square": row["n"] ** 2} for row in data]


def test_row_edits_compute_the_rows_that_changed(lab: Lab) -> None:
    data = numbers(200, other="x")
    made, computed = lab.run(data, Square)
    assert (rows_of(made), computed["square"]) == (squares(data), 200)
    shuffled = random.Random(1).sample(data, 200)
    new = [{"n": 1000 + n, "other": "x"} for n in range(3)]
    edits = {
        "appended": ([*data, *new], 3),
        "prepended": ([{"n": 2000, "other": "x"}, *data], 1),
        "deleted": (data[:50] + data[60:], 0),
        "shuffled": (shuffled, 0),
        "changed": ([*data[:10], {"n": 3000, "other": "x"}, *data[11:]], 1),
        "batch size": (data, 0),
    }
    for edit, (rows, expected) in edits.items():
        found, computed = lab.run(rows, Square, size=7 if edit == "batch size" else 50)
        assert (edit, computed["square"]) == (edit, expected)
        assert rows_of(found) == squares(rows)


def test_columns_that_a_step_does_not_declare_may_change(lab: Lab) -> None:
    lab.run(numbers(200, other="x"), Square)
    for columns in ({"other": "y"}, {"other": "x", "more": [1]}, {}):
        found, computed = lab.run(numbers(200, **columns), Square)
        assert computed == {}
        assert found.report.steps["square"].rows_in in (0, 200), "it is a hit, or all of them are taken"
        assert rows_of(found) == squares(numbers(200, **columns))


def test_what_was_joined_anew_is_a_hit_afterwards(lab: Lab) -> None:
    lab.run(numbers(20, other="x"), Square)
    lab.run(numbers(20, other="y"), Square)
    found, computed = lab.run(numbers(20, other="y"), Square)
    assert computed == {}
    assert found.report.steps["square"].decision == "hit"
    assert rows_of(found) == squares(numbers(20, other="y"))


def test_equal_rows_stay_separate(lab: Lab) -> None:
    data = [{"n": 1}] * 4
    first = rows_of(lab.run(data, Sample)[0])
    assert len({row["sample"] for row in first}) == 4
    found, computed = lab.run([*data, *data[:2], {"n": 2}], Sample)
    assert computed["sample"] == 3, "the k-th equal row takes the k-th stored output"
    assert rows_of(found)[:4] == first
    assert len({row["sample"] for row in rows_of(found)}) == 7


def test_what_was_put_together_with_other_columns_counts_as_one_answer(lab: Lab) -> None:
    x, y = {"n": 1, "other": "x"}, {"n": 1, "other": "y"}
    (first,) = rows_of(lab.run([x], Sample)[0])
    (again,) = rows_of(lab.run([y], Sample)[0])
    assert again["sample"] == first["sample"]
    for data in ([x, y], [y, x]):
        found, computed = lab.run(data, Sample)
        assert len({row["sample"] for row in rows_of(found)}) == 2
    assert computed == {}, "two answers are there by now"
    found, computed = lab.run([x, y, y], Sample)
    assert computed["sample"] == 1
    assert len({row["sample"] for row in rows_of(found)}) == 3


def test_of_an_answer_and_what_was_made_of_it_only_one_is_given_though_others_are_left(lab: Lab) -> None:
    x, y = {"n": 1, "other": "x"}, {"n": 1, "other": "y"}
    lab.run([x, x], Sample)
    lab.run([y], Sample)
    for data in ([x, y], [y, x]):
        found, computed = lab.run(data, Sample)
        assert len({row["sample"] for row in rows_of(found)}) == 2
        assert computed == {}
    found, computed = lab.run([x, y, x], Sample)
    assert len({row["sample"] for row in rows_of(found)}) == 3
    assert computed["sample"] == 1


def test_rows_that_were_left_out_are_known_when_the_outputs_they_were_first_left_out_of_are_gone(
    lab: Lab, cache_root: Path
) -> None:
    lab.run(numbers(20, other="x"), Even)
    first = list(cache_root.glob("steps/Even-*/*/*"))
    lab.run(numbers(20, other="y"), Even)
    for path in first:
        path.unlink(missing_ok=True)  # the note of the first run is gone by now
    found, computed = lab.run(numbers(20, other="z"), Even)
    assert rows_of(found) == numbers(20, other="z")[::2]
    assert computed == {}


def test_filters_and_steps_that_give_several_rows_reuse_too(lab: Lab) -> None:
    data = numbers(60, other="x")
    made, _ = lab.run(data, Even, Repeat)
    expected: Rows = [{"n": n, "other": "x", "k": k} for n in range(0, 60, 2) for k in range(n % 3)]
    assert rows_of(made) == expected
    found, computed = lab.run([*data[::-1], {"n": 62, "other": "x"}], Even, Repeat, size=9)
    assert computed == {"even": 1, "repeat": 1}
    assert sorted(row["n"] for row in rows_of(found)) == sorted([62, 62, *(row["n"] for row in expected)])
    _, computed = lab.run(numbers(60, other="y"), Even, Repeat)
    assert computed == {}


def test_metadata_of_the_steps_above_is_joined_on_and_stays_up_to_date(lab: Lab) -> None:
    computed = []
    for above in ({"above": 1}, {"above": 2, "more": None}, {"told": "before", "above": 3}):
        found, counts = lab.run([{"n": n, METADATA: above} for n in range(5)], Tells)
        assert rows_of(found) == [{"n": -n, METADATA: {**above, "told": n}} for n in range(5)]
        computed.append(counts["tells"])
    assert computed == [5, 0, 0]


def test_misses_are_packed_into_full_batches(lab: Lab) -> None:
    lab.run(numbers(200)[::2], Square)
    found, computed = lab.run(numbers(200), Square, size=50)
    assert computed["square"] == 100
    assert found.report.steps["square"].batches_computed == 2
    assert found.report.steps["square"].rows_in == 200, "those that are reused are taken too"
    assert rows_of(found) == squares(numbers(200))


def test_a_column_that_is_not_declared_cannot_be_read(lab: Lab) -> None:
    with pytest.raises(StepError, match=r"(?s)'peeks'.*column 'other'.*`inputs` does not declare"):
        lab.run(numbers(5, other="x"), Peeks)
    with pytest.raises(StepError, match="column 'other'"):
        lab.run(numbers(5), Peeks, fields={"on_error": "skip"})


def test_rows_that_fail_are_left_out_or_null_and_tried_again(lab: Lab) -> None:
    data = numbers(20, other="x")
    with pytest.raises(StepError, match="is odd"):
        lab.run(data, Odd)
    made, _ = lab.run(data, Odd, Square, fields={"on_error": "skip"})
    assert [row["n"] for row in rows_of(made)] == list(range(0, 20, 2))
    assert made.report.steps["odd"].rows_failed == 10
    assert made.report.steps["odd"].failures[0] == "input row 1: process() raised ValueError: 1 is odd"
    assert made.report.steps["odd"].rows_in == 20
    made, computed = lab.run(data, Odd, Square, fields={"on_error": "null"})
    assert computed["odd"] >= 10
    assert computed["square"] == 10, "the rows that were left out are there now"
    assert [row["half"] for row in rows_of(made)] == [n // 2 if n % 2 == 0 else None for n in range(20)]
    made, _ = lab.run(data, Odd, Square, fields={"on_error": "null"})
    assert made.report.steps["odd"].decision == "resume", "an output that lacks rows is never a hit"


class Pair(Step):
    """Puts the rows of two branches together."""

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [{"left": left["n"], "right": right["n"]} for left, right in zip(*inputs, strict=True)]


class Total(GlobalStep):
    def process(self, inputs: StepInput) -> StepOutput:
        yield [{"n": sum(row["n"] for row in inputs)}]


def paired(lab: Lab, on_error: OnError, *between: type[Step]) -> Rows:
    """Two branches of which each cannot do half of the rows: as many as the other, but not the same ones."""
    log = str(lab.log)
    with Pipeline(name="pairs") as pipeline:
        load, pair = LoadDataFromDicts(name="load", data=numbers(10)), Pair(name="pair")
        for at, name in enumerate("ab"):
            last: Any = load >> Odd(name=name, log=log, at=at, on_error=on_error)
            for kind in between:
                last = last >> kind()
            last >> pair
    return rows_of(pipeline.run(engine=lab.engine, use_cache=False))


def parted(lab: Lab) -> Rows:
    """Two branches that part after a step that cannot do half of the rows."""
    log = str(lab.log)
    with Pipeline(name="parted") as pipeline:
        odd: Any = LoadDataFromDicts(name="load", data=numbers(10)) >> Odd(
            name="odd", log=log, on_error="skip"
        )
        [odd, odd >> Scale(name="scale", log=log)] >> Pair(name="pair")
    return rows_of(pipeline.run(engine=lab.engine, use_cache=False))


def test_rows_that_failed_never_let_others_be_joined_that_do_not_belong_together(lab: Lab) -> None:
    message = (
        r"'pair'.*joined row by row, but '[ab]', which is not above all of them, left out rows that failed"
    )
    with pytest.raises(StepError, match=message):
        paired(lab, "skip")
    assert paired(lab, "null") == [{"left": n, "right": n} for n in range(10)]
    assert parted(lab) == [{"left": n, "right": n} for n in range(0, 10, 2)]
    assert paired(lab, "skip", Total) == [{"left": 25, "right": 20}], "a total is in no order of its input"


def test_rows_that_failed_are_computed_once_they_can_be(lab: Lab) -> None:
    data = numbers(20)
    lab.run(data, Odd, fields={"on_error": "skip", "at": 1})
    found, computed = lab.run(data, Odd, fields={"at": 7})
    assert computed["odd"] == 10
    assert [row["half"] for row in rows_of(found)] == [n // 2 for n in range(20)]
    assert lab.run(data, Odd)[1] == {}


def test_a_sample_of_what_is_reused_can_be_computed_again(lab: Lab) -> None:
    data = numbers(100)
    lab.run(data, Square, Sample)
    found, _ = lab.run(data, Square, Sample, verify=1.0)
    assert found.report.steps["square"].reason.startswith("run(verify=...) looks its rows up one by one")
    square, sample = found.report.steps["square"], found.report.steps["sample"]
    assert (square.rows_checked, square.rows_differing) == (100, 0)
    assert (sample.rows_checked, sample.rows_differing) == (100, 100)
    assert (square.rows_reused, sample.rows_reused) == (100, 100)
    found, computed = lab.run(data, Square, Sample, verify=0.1)
    assert 0 < computed["square"] < 40


@pytest.mark.parametrize("verify", [-0.1, 1.5, "0.1"])
def test_a_sample_is_a_share(lab: Lab, verify: Any) -> None:
    with pytest.raises(ParameterError, match="verify is a share of the reused units, from 0 to 1, not"):
        lab.run(numbers(1), Square, verify=verify)


def test_rows_that_cannot_be_computed_again_to_compare_differ_and_stay(lab: Lab) -> None:
    lab.run(numbers(20), Odd, fields={"at": 7})
    more = [*numbers(20), {"n": 20}]
    found, _ = lab.run(more, Odd, fields={"on_error": "skip"}, verify=1.0)
    assert [row["half"] for row in rows_of(found)] == [n // 2 for n in range(21)]
    assert found.report.steps["odd"].rows_differing == 10
    found, computed = lab.run(more, Odd)
    assert (found.report.steps["odd"].decision, computed) == ("hit", {})


def test_an_upstream_step_that_is_computed_anew_with_equal_rows_leaves_everything_below_reused(
    lab: Lab,
) -> None:
    lab.run(numbers(30), Scale, Square)
    found, computed = lab.run(numbers(30), Scale, Square, fields={"remark": "another"})
    assert computed == {"scale": 30}
    assert rows_of(found) == squares(numbers(30))


def test_a_forced_step_is_not_computed_twice_where_damage_is_met_on_the_way(
    lab: Lab, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.001")
    lab.run(numbers(150), Square)
    (old,) = cache_root.glob("steps/Square-*/parts/*.parquet")
    lab.run(numbers(300), Square, Anew)
    (newer,) = (part for part in cache_root.glob("steps/Square-*/parts/*.parquet") if part != old)
    flip(newer, 20)
    found, computed = lab.run(numbers(300), Square, Anew)
    assert found.report.repairs
    assert computed["anew"] == 300
    assert rows_of(found) == squares(numbers(300))
