"""Users' files, wherever they are: opened, listed, identified."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import StorageError
from distill_ray.storage import expand, identity, open_url
from tests.gcs_server import GcsRoot


@pytest.fixture(params=["local", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A folder's URL and the options it is reached with."""
    if request.param == "local":
        return str(tmp_path), {}
    root: GcsRoot = request.getfixturevalue("gcs_root")
    return root.url, root.storage_options


@pytest.fixture
def write(place: tuple[str, dict[str, Any]]) -> Callable[[str, bytes], str]:
    folder, options = place

    def write(name: str, data: bytes) -> str:
        url = f"{folder}/{name}"
        if "://" not in url:
            Path(url).parent.mkdir(parents=True, exist_ok=True)
        with open_url(url, "wb", options) as file:
            file.write(data)
        return url

    return write


def test_text_and_bytes_are_written_and_read(place: tuple[str, dict[str, Any]]) -> None:
    folder, options = place
    for mode, data in (("t", "é\n"), ("b", b"\xff")):
        with open_url(f"{folder}/file", f"w{mode}", options) as file:
            file.write(data)
        with open_url(f"{folder}/file", f"r{mode}", options) as file:
            assert file.read() == data


def test_compression_is_told_by_the_name(place: tuple[str, dict[str, Any]], write: Any) -> None:
    url = write("file.jsonl.gz", b"text")
    with open_url(url, "rb", place[1]) as file:
        assert file.read() == b"text"
    if "://" not in url:
        assert gzip.decompress(Path(url).read_bytes()) == b"text"


def test_a_folder_a_glob_and_a_file_are_expanded_in_order(
    place: tuple[str, dict[str, Any]], write: Any
) -> None:
    folder, options = place
    for name in ("b.jsonl", "a.jsonl", "deep/c.csv", ".hidden", "_SUCCESS"):
        write(f"data/{name}", b"x")
    below = [f"{folder}/data/{name}" for name in ("a.jsonl", "b.jsonl", "deep/c.csv")]
    assert expand(f"{folder}/data", options) == below
    assert expand(f"{folder}/data/*.jsonl", options) == below[:2]
    assert expand(below[0], options) == below[:1]


def test_files_that_are_not_there_are_an_error(place: tuple[str, dict[str, Any]], write: Any) -> None:
    folder, options = place
    write("data/a.jsonl", b"x")
    for look in (expand, identity):
        with pytest.raises(StorageError, match=r"No file found at '.*/absent'"):
            look(f"{folder}/absent", options)
    with pytest.raises(StorageError, match="No file found"):
        expand(f"{folder}/data/*.csv", options)


def test_a_files_identity_is_its_content(place: tuple[str, dict[str, Any]], write: Any) -> None:
    _, options = place
    one, same, other = write("one", b"1"), write("same", b"1"), write("other", b"2")
    assert identity(one, options) == identity(same, options)
    assert identity(one, options) != identity(other, options)
    before = identity(one, options)
    write("one", b"2")  # within the same second, of the same size
    assert identity(one, options) != before
    write("one", b"1")
    assert identity(one, options) == before


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("x")
    assert expand("~/file") == [str(tmp_path / "file")]


def test_a_url_that_nobody_knows_is_an_error_that_names_it() -> None:
    for look in (expand, identity, open_url):
        with pytest.raises(StorageError, match="Cannot open 'nosuch://bucket/file'"):
            look("nosuch://bucket/file")
