"""What the URL of a cache root stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import StorageError
from distill_ray.storage import LocalStorage, ObjectStorage, open_storage


def test_a_path_is_a_folder_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    roots = {
        "cache": f"{tmp_path}/cache",
        f"{tmp_path}/a b#c": f"{tmp_path}/a b#c",
        "~/cache": "/home/someone/cache",
        "file:///srv/cache": "/srv/cache",
        "local:///srv/cache/": "/srv/cache",
    }
    assert {given: open_storage(given) for given in roots} == {
        given: LocalStorage(path) for given, path in roots.items()
    }


def test_a_url_is_a_prefix_of_a_bucket() -> None:
    assert open_storage("gs://bucket/prefix/") == ObjectStorage("gs://bucket/prefix")


def test_options_may_be_given_by_protocol() -> None:
    by_protocol: dict[str, dict[str, Any]] = {
        "gs": {"token": "anon"},
        "s3": {"client_kwargs": {"region_name": "eu-west-1"}},
    }
    for protocol in ("gs", "s3", "az"):
        chosen = ObjectStorage(f"{protocol}://b", by_protocol.get(protocol, {}))
        assert open_storage(f"{protocol}://b", by_protocol) == chosen
    plain: list[dict[str, Any]] = [{"token": "anon"}, by_protocol["s3"], {"gs": {}, "client_kwargs": {}}]
    for options in plain:
        assert open_storage("s3://b", options) == ObjectStorage("s3://b", options)


def test_a_password_in_the_url_is_refused_without_showing_it() -> None:
    with pytest.raises(StorageError, match=r"sftp://\.\.\.@host has a password") as refused:
        open_storage("sftp://user:hunter2@host/cache")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["gs:/bucket/prefix", str(Path("gs://bucket/prefix")), "s3:/bucket/prefix", "file:/srv/cache"]
)
def test_a_url_that_lost_a_slash_is_refused_and_no_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=rf"give '{url.replace(':/', '://')}' as a text, or '\./{url}'"):
        open_storage(url)
    assert open_storage(f"./{url}") == LocalStorage(f"{tmp_path}/{url}")


@pytest.mark.parametrize("path", ["a:b", "/srv/a:/b", "C:/cache", "data:"])
def test_a_colon_in_a_path_is_nothing_special(path: str) -> None:
    assert isinstance(open_storage(path), LocalStorage)


def test_a_file_system_that_nobody_knows_is_an_error_that_names_it() -> None:
    with pytest.raises(StorageError, match="Cannot open 'nosuch://bucket'"):
        open_storage("nosuch://bucket").read("object")
