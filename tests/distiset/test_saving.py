"""A Distiset in a folder and back."""

from __future__ import annotations

import json
import tempfile
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.cache.rows import encode_rows
from distill_ray.distiset import Dataset, Distiset
from distill_ray.errors import CorruptObjectError, FormatVersionError, StorageError
from distill_ray.types import Row
from tests.damage import flip
from tests.distiset.made_rows import chunks, make, same


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to save: a local folder, or an object store."""
    return str(tmp_path / "saved") if request.param == "folder" else f"memory://saves/{uuid.uuid4().hex}"


def distiset_of(*rows: Row, leaf: str = "default", split: str = "train") -> Distiset:
    return Distiset({leaf: {split: Dataset.from_tables([encode_rows(list(rows))])}})


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=150, deadline=None)
@given(parts=chunks, data=st.data())
def test_a_save_gives_every_row_back_exactly(parts: list[list[Row]], data: st.DataObject) -> None:
    place = f"memory://saves/{uuid.uuid4().hex}"
    rows = [row for part in parts for row in part]
    order = data.draw(st.permutations(range(len(rows))))
    with tempfile.TemporaryDirectory() as folder:
        dataset = make(Path(folder), parts).dataset
        Distiset({"default": {"train": dataset, "test": dataset.select(order)}}).save_to_disk(
            place, max_shard_size=data.draw(st.sampled_from([1, 100, 1 << 20]))
        )
        names = dataset.column_names
    loaded = Distiset.load_from_disk(place)["default"]
    assert same(loaded["train"].to_list(), rows)
    assert same(loaded["test"].to_list(), [rows[index] for index in order])
    assert loaded["train"].column_names == loaded["test"].column_names == names
    assert len(loaded["train"]) == len(rows)
    assert same(list(loaded["train"][1:3]), rows[1:3])


def test_leaves_splits_report_and_pipeline_come_back(place: str) -> None:
    saved = distiset_of({"a": 1}, {"a": 2}, leaf="a/b c")
    saved["empty"] = {"train": Dataset.from_tables([])}
    saved.report.run, saved.report.pipeline = "r1", "p"
    saved.save_to_disk(place)
    loaded = Distiset.load_from_disk(place)
    assert {leaf: {s: len(d) for s, d in splits.items()} for leaf, splits in loaded.items()} == {
        "a/b c": {"train": 2},
        "empty": {"train": 0},
    }
    assert loaded["empty"]["train"].to_list() == []
    assert loaded["a/b c"]["train"].to_list() == [{"a": 1}, {"a": 2}]
    assert loaded.report == saved.report
    assert loaded.origin is None


def test_a_loaded_distiset_can_be_saved_and_loaded_again(place: str) -> None:
    rows: list[Row] = [{"a": 1}, {"a": "x", "b": None}, {"b": {"c": 2**70}}]
    distiset_of(*rows).save_to_disk(place)
    Distiset.load_from_disk(place).save_to_disk(f"{place}/again")
    again = Distiset.load_from_disk(f"{place}/again")["default"]["train"]
    assert same(again.to_list(), rows)


def test_the_folder_is_named_as_in_distilabel(place: str) -> None:
    distiset_of({"a": 1}).save_to_disk(distiset_path=place)
    assert Distiset.load_from_disk(distiset_path=place)["default"]["train"].to_list() == [{"a": 1}]


def test_loading_reads_no_rows_and_large_splits_lie_in_several_files(tmp_path: Path) -> None:
    place = tmp_path / "saved"
    distiset_of(*[{"n": n} for n in range(1_000)]).save_to_disk(place, max_shard_size=1_000)
    assert len([name for name in files(place) if name.endswith(".parquet")]) == 8
    loaded = Distiset.load_from_disk(place)["default"]["train"]
    for path in (place / "data" / "default").glob("*-00005-*"):
        path.unlink()
    assert len(loaded) == 1_000
    assert loaded[10] == {"n": 10}
    with pytest.raises(CorruptObjectError, match=r"Leaf 'default'.*-00005-.*gone.*Save the Distiset again"):
        loaded.to_list()


def test_files_of_a_split_have_one_schema_that_other_tools_read(tmp_path: Path) -> None:
    parts: list[list[Row]] = [
        [{"same": 1, "mixed": 1, "null": None}],
        [{"same": 2, "mixed": "x", "null": "y"}],
        [{"mixed": None, "null": None}],
    ]
    dataset = make(tmp_path / "cache", parts).dataset
    Distiset({"default": {"train": dataset}}).save_to_disk(tmp_path / "saved", max_shard_size=1)
    folder = tmp_path / "saved" / "data" / "default"
    schemas = [pq.read_schema(path) for path in sorted(folder.iterdir())]
    assert len(schemas) == 3
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert pq.read_table(folder).to_pydict() == {
        "same": [1, 2, None],
        "mixed": ["1", '"x"', "null"],
        "null": [None, "y", None],
    }


def test_the_card_lets_datasets_load_a_saved_folder(tmp_path: Path) -> None:
    import datasets

    saved = distiset_of(*[{"n": n, "t": f"t{n}"} for n in range(10)])
    saved["other"] = distiset_of({"m": 1})["default"]
    saved["empty"] = {"train": Dataset.from_tables([])}
    saved.save_to_disk(tmp_path / "saved")
    loaded = datasets.load_dataset(str(tmp_path / "saved"), "default", cache_dir=str(tmp_path / "hf"))
    assert loaded["train"].to_list() == saved["default"]["train"].to_list()
    other = datasets.load_dataset(str(tmp_path / "saved"), "other", cache_dir=str(tmp_path / "hf"))
    assert other["train"].to_list() == [{"m": 1}]


def test_a_save_over_another_leaves_no_file_of_it(tmp_path: Path) -> None:
    place = tmp_path / "saved"
    distiset_of({"a": 1}, leaf="old").save_to_disk(place)
    (place / "mine.txt").write_text("mine")
    before = files(place)
    distiset_of({"a": 2}).save_to_disk(place)
    assert Distiset.load_from_disk(place)["default"]["train"].to_list() == [{"a": 2}]
    assert len([name for name in files(place) if name.endswith(".parquet")]) == 1
    assert "mine.txt" in files(place)
    assert len(files(place)) == len(before)


@pytest.fixture
def broken(tmp_path: Path) -> Distiset:
    """Two parts, of which the second one is damaged: it is met when the first one is saved already."""
    made = make(tmp_path / "cache", [[{"a": 1}], [{"a": 2}]])
    flip(made.path(1), 10)
    return Distiset({"default": {"train": made.dataset}})


def test_a_save_that_was_cut_short_is_not_taken_for_a_whole_one(place: str, broken: Distiset) -> None:
    with pytest.raises(CorruptObjectError):
        broken.save_to_disk(place, max_shard_size=1)
    with pytest.raises(StorageError, match=r"no complete save.*distiset\.json"):
        Distiset.load_from_disk(place)


def test_a_save_that_was_cut_short_leaves_the_one_before_whole(place: str, broken: Distiset) -> None:
    distiset_of({"a": 0}).save_to_disk(place)
    with pytest.raises(CorruptObjectError):
        broken.save_to_disk(place, max_shard_size=1)
    assert Distiset.load_from_disk(place)["default"]["train"].to_list() == [{"a": 0}]


def test_a_damaged_file_is_an_error_and_never_wrong_rows(tmp_path: Path) -> None:
    place = tmp_path / "saved"
    distiset_of({"a": 1}, {"a": 2}).save_to_disk(place)
    (path,) = (place / "data" / "default").iterdir()
    flip(path, 10)
    with pytest.raises(CorruptObjectError, match=r"Leaf 'default'.*not what was written.*Save the Distiset"):
        Distiset.load_from_disk(place)["default"]["train"].to_list()


def test_a_damaged_index_and_an_unknown_format_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "saved"
    distiset_of({"a": 1}).save_to_disk(place)
    index = place / "distiset.json"
    whole = index.read_text()
    index.write_text(whole[:-20])
    with pytest.raises(CorruptObjectError, match="not JSON"):
        Distiset.load_from_disk(place)
    record = json.loads(whole)
    index.write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(FormatVersionError, match="format 99"):
        Distiset.load_from_disk(place)
    del record["leaves"]["default"]["train"]["files"][0]["rows"]
    index.write_text(json.dumps(record))
    with pytest.raises(CorruptObjectError, match="not what was written"):
        Distiset.load_from_disk(place)


def test_nothing_is_saved_beside_the_rows_that_were_asked_for(tmp_path: Path) -> None:
    dataset = make(tmp_path / "cache", [[{"a": 1, "secret": "x"}]], hidden=["secret"]).dataset
    Distiset({"default": {"train": dataset}}).save_to_disk(tmp_path / "saved", save_card=False)
    assert Distiset.load_from_disk(tmp_path / "saved")["default"]["train"].to_list() == [{"a": 1}]
    assert len(files(tmp_path / "saved")) == 2
