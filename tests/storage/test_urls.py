"""Users' files, wherever they are: opened, listed, identified."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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


def test_a_file_changed_under_its_old_time_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_ray.storage.urls._SETTLED_AFTER_NS", -1)
    file, found = tmp_path / "file", []
    for text in ("1", "2"):
        file.write_text(text)
        os.utime(file, ns=(0, 0))
        found.append(identity(str(file)))
    assert found[0] != found[1]


def test_a_signed_url_is_known_by_its_content_and_shows_no_signature(tmp_path: Path) -> None:
    class Tagging(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("ETag", '"1"')
            super().end_headers()

        def log_message(self, *_: Any) -> None: ...

    (tmp_path / "file").write_text("x")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Tagging, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/file"
            plain, one, other = (
                identity(url),
                identity(f"{url}?sig=hidden-1"),
                identity(f"{url}?sig=hidden-2"),
            )
        finally:
            server.shutdown()
    assert plain == {"size": 1, "url": url, "etag": '"1"'}
    assert one == other == {"sha256": sha256(b"x").hexdigest()}


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("x")
    assert expand("~/file") == [str(tmp_path / "file")]


def test_a_url_that_nobody_knows_is_an_error_that_names_it() -> None:
    for look in (expand, identity, open_url):
        with pytest.raises(StorageError, match="Cannot open 'nosuch://bucket/file'"):
            look("nosuch://bucket/file")
