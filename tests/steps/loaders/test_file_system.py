from __future__ import annotations

import csv
import gzip
import io
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import fsspec.implementations.local
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.errors import ParameterError, StorageError
from distill_ray.steps import LoadDataFromFileSystem
from distill_ray.steps.loaders.readers import READERS, Skip

ROWS = [{"n": n, "text": f"Zeile {n}\nü"} for n in range(7)]


def write(folder: Path, filetype: str, rows: list[dict[str, Any]], name: str = "data") -> str:
    path = folder / f"{name}.{filetype}"
    if filetype == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    elif filetype == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.DictWriter(file, list(rows[0]))
            lines.writeheader()
            lines.writerows(rows)
    elif filetype == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    return str(path)


def load(data_files: Any, offset: int = 0, **parameters: Any) -> list[dict[str, Any]]:
    loader = LoadDataFromFileSystem(data_files=data_files, batch_size=2, **parameters)
    return [row for rows, _ in loader.process(offset=offset) for row in rows]


def as_read(filetype: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "n": str(row["n"])} for row in rows] if filetype == "csv" else rows


@pytest.mark.parametrize("filetype", list(READERS))
@pytest.mark.parametrize("offset", [0, 1, 3, 7, 12])
def test_rows_come_from_an_offset_on(tmp_path: Path, filetype: str, offset: int) -> None:
    path = write(tmp_path, filetype, ROWS)
    assert load(path, offset) == as_read(filetype, ROWS[offset:])


@pytest.mark.parametrize("filetype", list(READERS))
def test_an_offset_goes_from_file_to_file(tmp_path: Path, filetype: str) -> None:
    write(tmp_path, filetype, ROWS[:4], "a")
    write(tmp_path, filetype, ROWS[4:], "b")
    for offset in range(8):
        assert load(tmp_path, offset) == as_read(filetype, ROWS[offset:])


@pytest.mark.parametrize("filetype", list(READERS))
def test_the_columns_are_known_before_the_rows_are_read(tmp_path: Path, filetype: str) -> None:
    path = write(tmp_path, filetype, ROWS)
    assert LoadDataFromFileSystem(data_files=path).outputs == ["n", "text"]


def test_batches_say_which_is_the_last(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", ROWS[:4])
    batches = list(LoadDataFromFileSystem(data_files=path, batch_size=2).process())
    assert [(len(rows), last) for rows, last in batches] == [(2, False), (2, True)]


def test_an_empty_file_gives_one_empty_last_batch(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", [])
    assert list(LoadDataFromFileSystem(data_files=path).process()) == [([], True)]
    assert LoadDataFromFileSystem(data_files=path).outputs == []


def test_num_examples_counts_from_the_first_row_whatever_the_offset(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", ROWS)
    assert load(path, num_examples=3) == ROWS[:3]
    assert load(path, offset=2, num_examples=3) == ROWS[2:3]
    assert load(path, offset=5, num_examples=3) == []


def test_globs_folders_and_lists_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        write(tmp_path, "jsonl", [{"file": name}], name)
    (tmp_path / "_SUCCESS").touch()
    in_order = [{"file": "a"}, {"file": "b"}, {"file": "c"}]
    assert load(str(tmp_path / "*.jsonl")) == in_order
    assert load(tmp_path) == in_order
    assert load([tmp_path / "c.jsonl", str(tmp_path / "[ab].jsonl")]) == [in_order[2], *in_order[:2]]


def test_compressed_files_are_decompressed(tmp_path: Path) -> None:
    path = Path(write(tmp_path, "jsonl", ROWS))
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert load(tmp_path / "packed.jsonl.gz") == ROWS


def test_files_of_any_store_are_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/readers/rows.jsonl", b'{"a": 1}\n')
    assert load("memory://readers/*.jsonl") == [{"a": 1}]


def test_values_arrive_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"big": 123456789012345678901234567890, "x": NaN}\n\n  \n{"s": "\\ud800"}')
    first, second = load(path)
    assert first["big"] == 123456789012345678901234567890
    assert math.isnan(first["x"])
    assert second == {"s": "\ud800"}


def test_json_may_be_objects_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"a": 1}\n{\n "a": 2\n}', encoding="utf-8")
    assert load(path) == [{"a": 1}, {"a": 2}]


def test_values_of_csv_may_be_long_and_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n" + "x" * 200_000 + '\n"1,\n2",', encoding="utf-8")
    assert load(path) == [{"a": "x" * 200_000, "b": None}, {"a": "1,\n2", "b": ""}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', r"a\.jsonl', line 3: "),
        ("a.jsonl", "[1]\n", r"a\.jsonl', line 1: a row must be an object, got list"),
        ("a.json", '[{"a": 1},\n{"a" 2}]', r"a\.json', line 2: "),
        ("a.json", '[{"a": 1},\n{"a": 2}', r"a\.json', line 2: the array has no end"),
        ("a.json", '[{"a": 1}\n{"a": 2}]', r"a\.json', line 2: expected ',' or '\]'"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv', line 3: more values than the 2 columns"),
        ("a.parquet", "no parquet", r"a\.parquet' is no Parquet file"),
        ("a.txt", "?", r"cannot tell the type of '.*a\.txt' from its name: give `filetype`"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ParameterError, match=message):
        load(tmp_path / name)


def test_a_missing_file_and_missing_data_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Step '.*': No file found at '.*none\.jsonl'"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(ParameterError, match="has no `data_files`"):
        list(LoadDataFromFileSystem().process())  # type: ignore[call-arg]


def test_filetype_overrides_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text('{"a": 1}', encoding="utf-8")
    assert load(tmp_path / "a.txt", filetype="jsonl") == [{"a": 1}]


def test_files_identify_themselves_by_content_and_not_by_place_or_time(tmp_path: Path) -> None:
    def state(path: str) -> Any:
        return LoadDataFromFileSystem(data_files=path).signed_state()

    one, same = write(tmp_path, "jsonl", ROWS, "one"), write(tmp_path, "jsonl", ROWS, "same")
    other = write(tmp_path, "jsonl", ROWS[:-1], "other")
    assert state(one) == state(same) != state(other)
    before = state(one)
    for n in range(5):  # equal size, written within the clock's grain
        Path(one).write_text(
            Path(one).read_text(encoding="utf-8").replace(f'"n": {n}', '"n": 9'), encoding="utf-8"
        )
        assert state(one) != before
        before = state(one)


@pytest.mark.parametrize("filetype", list(READERS))
def test_a_file_is_closed_however_far_its_rows_were_read(
    tmp_path: Path, filetype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    open_local = fsspec.implementations.local.LocalFileSystem._open

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(open_local(self, *args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "_open", watched)
    loader = LoadDataFromFileSystem(data_files=write(tmp_path, filetype, ROWS), batch_size=2)
    abandoned = loader.process()
    next(abandoned)
    assert not opened[-1].closed
    abandoned.close()  # type: ignore[attr-defined]
    loader.outputs  # noqa: B018
    list(loader.process())
    assert len(opened) == 3
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("filetype", list(READERS))
def test_memory_does_not_grow_with_the_file(tmp_path: Path, filetype: str) -> None:
    rows = [{"n": n, "text": "x" * 1000} for n in range(10_000)]
    path = write(tmp_path, filetype, rows)
    if filetype == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1000)
    loader = LoadDataFromFileSystem(data_files=path)
    next(loader.process())
    tracemalloc.start()
    seen = sum(len(batch) for batch, _ in loader.process())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 10_000
    assert peak < 6_000_000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
JSON_ROWS = st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=4), max_size=6)


@given(JSON_ROWS, st.sampled_from([None, 0, 2]), st.integers(0, 7))
def test_json_rows_are_read_back(rows: list[dict[str, Any]], indent: int | None, skip: int) -> None:
    array = io.BytesIO(json.dumps(rows, indent=indent).encode())
    assert list(READERS["json"].read(array, "a.json", Skip(skip))) == rows[skip:]
    lines = io.BytesIO(b"\n".join(json.dumps(row).encode() for row in rows))
    assert list(READERS["jsonl"].read(lines, "a.jsonl", Skip(skip))) == rows[skip:]
