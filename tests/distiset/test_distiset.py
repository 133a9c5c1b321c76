"""What a run gives: leaves by name, divided into splits, with the run's record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.rows import encode_rows
from distill_ray.distiset import Dataset, Distiset
from distill_ray.errors import CorruptObjectError, ParameterError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import GeneratorStep, LoadDataFromDicts, Step, StepInput
from distill_ray.types import GeneratorStepOutput, Row, StepOutput
from tests.damage import flip
from tests.distiset.made_rows import same

ROWS: list[Row] = [
    {"a": 1, "nested": {"x": [1, {"y": None}]}},
    {"a": 2**70, "other": float("nan")},
    {"a": None, "nested": {}, "other": 1},
    {},
    {"a": "text", "other": True},
]


class Numbers(GeneratorStep):
    count: int = 100

    @property
    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        for start in range(offset, self.count, self.batch_size):
            end = min(self.count, start + self.batch_size)
            yield [{"n": n} for n in range(start, end)], end == self.count


class Same(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Nothing(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield []


class WithMetadata(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "distilabel_metadata": {"raw": "x"}} for row in inputs]


def run(*steps: Any, **options: Any) -> Distiset:
    """Run a pipeline of a first step that flows into each of the others."""
    pipeline = Pipeline(name="rows", **options)
    for step in steps:
        pipeline.add_step(step)
    for step in steps[1:]:
        pipeline.connect_steps(steps[0], step)
    return pipeline.run(engine="inline")


def numbers(count: int) -> Distiset:
    return Distiset(
        {"default": {"train": Dataset.from_tables([encode_rows([{"n": n} for n in range(count)])])}}
    )


def ns(dataset: Dataset) -> list[int]:
    return [row["n"] for row in dataset]


def test_a_single_leaf_is_the_default_and_its_rows_are_exact() -> None:
    distiset = run(LoadDataFromDicts(data=ROWS, batch_size=2), Same())
    assert list(distiset) == ["default"]
    assert list(distiset["default"]) == ["train"]
    dataset = distiset["default"]["train"]
    assert same(dataset.to_list(), ROWS)
    assert same([dataset[position] for position in range(-5, 0)], ROWS)
    assert dataset.column_names == ["a", "nested", "other"]
    assert repr(distiset) == "Distiset({'default': {'train': 5}})"


def test_several_leaves_have_their_names_and_an_empty_one_is_there_too() -> None:
    distiset = run(Numbers(count=3), Same(name="same"), Nothing(name="nothing"))
    assert {leaf: len(splits["train"]) for leaf, splits in distiset.items()} == {"same": 3, "nothing": 0}
    assert distiset["nothing"]["train"].to_list() == []
    assert distiset["nothing"]["train"].column_names == []
    with pytest.raises(KeyError, match="no leaf 'default': there are 'same', 'nothing'"):
        distiset["default"]


def test_the_metadata_column_is_there_only_where_it_is_enabled() -> None:
    assert run(Numbers(count=1), WithMetadata())["default"]["train"].column_names == ["n"]
    shown = run(Numbers(count=1), WithMetadata(), enable_metadata=True)["default"]["train"]
    assert shown.to_list() == [{"n": 0, "distilabel_metadata": {"raw": "x"}}]


def test_the_record_and_the_pipeline_of_the_run_are_at_hand_and_come_back_from_a_save(tmp_path: Path) -> None:
    distiset = run(Numbers(name="numbers", count=3), Same(name="same"), description="Three numbers.")
    distiset.save_to_disk(tmp_path / "saved")
    loaded = Distiset.load_from_disk(tmp_path / "saved")
    assert distiset.report.steps["same"].rows_out == 3
    assert loaded.report == distiset.report
    assert distiset.origin is not None
    assert [step.name for step in distiset.origin.steps] == ["numbers", "same"]
    assert loaded.origin == distiset.origin
    assert loaded["default"]["train"].to_list() == distiset["default"]["train"].to_list()
    assert "Three numbers." in (tmp_path / "saved" / "README.md").read_text()


def test_rows_in_memory_outlive_the_cache(cache_root: Path) -> None:
    import shutil

    distiset = run(Numbers(count=3), Same()).in_memory()
    shutil.rmtree(cache_root)
    assert ns(distiset["default"]["train"]) == [0, 1, 2]


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_running_again_heals_a_part_that_was_met_damaged_or_gone(cache_root: Path, harm: str) -> None:
    dataset = run(Numbers(name="numbers", count=3), Same(name="same"))["default"]["train"]
    (part,) = cache_root.glob("steps/Same-*/parts/*.parquet")
    if harm == "gone":
        part.unlink()
    else:
        flip(part)
    with pytest.raises(CorruptObjectError, match=r"(?is)leaf 'default'.*run.*again"):
        dataset.to_list()
    again = run(Numbers(name="numbers", count=3), Same(name="same"))
    assert ns(again["default"]["train"]) == [0, 1, 2]
    assert again.report.steps["same"].rows_computed == 3


@given(
    count=st.integers(2, 60),
    train_size=st.floats(0.5, 0.99),
    shuffle=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_division_has_every_row_once_and_depends_on_the_seed_alone(
    count: int, train_size: float, shuffle: bool, seed: int
) -> None:
    divided = numbers(count).train_test_split(train_size, shuffle=shuffle, seed=seed)["default"]
    again = numbers(count).train_test_split(train_size, shuffle=shuffle, seed=seed)["default"]
    assert len(divided["train"]) == int(train_size * count)
    assert sorted(ns(divided["train"]) + ns(divided["test"])) == list(range(count))
    assert ns(divided["train"]) == ns(again["train"])
    assert divided["test"].to_list() == again["test"].to_list()
    if not shuffle:
        assert ns(divided["train"]) + ns(divided["test"]) == list(range(count))


def test_a_seed_divides_the_same_way_for_ever() -> None:
    divided = numbers(8).train_test_split(0.5, seed=42)["default"]
    assert ns(divided["train"]) == [3, 4, 6, 7]
    assert ns(divided["test"]) == [2, 5, 0, 1]


def test_a_division_is_made_in_place_in_all_leaves_or_in_none() -> None:
    distiset = numbers(10)
    distiset["tiny"] = numbers(1)["default"]
    with pytest.raises(ParameterError, match="Leaf 'tiny' has 1 rows"):
        distiset.train_test_split(0.5)
    assert list(distiset["default"]) == ["train"]
    del distiset["tiny"]
    assert distiset.train_test_split(0.5) is distiset
    assert list(distiset["default"]) == ["train", "test"]
    with pytest.raises(ParameterError, match="only 'train' alone can be divided"):
        distiset.train_test_split(0.5)


@pytest.mark.parametrize("size", [0, 1, -0.5, 7])
def test_a_size_that_is_no_share_is_refused(size: float) -> None:
    with pytest.raises(ParameterError, match="between 0 and 1"):
        numbers(10).train_test_split(size)
