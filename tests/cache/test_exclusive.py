"""Whether a storage creates exclusively is tried out, and those that do not are used all the same."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from distill_ray.cache.exclusive import creates_exclusively
from distill_ray.errors import StorageError
from distill_ray.storage import LayeredStorage, ReadOnlyStorage, Storage, open_storage
from tests.gcs_server import GcsRoot


class Careless(MemoryFileSystem):  # type: ignore[misc]  # it has no types
    """Ignores that an object is only to be created, as several of fsspec's file systems do."""

    protocol = "careless"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, mode="overwrite", **kwargs)


class Ignorant(Careless):
    """Knows of no such mode."""

    protocol = "ignorant"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create":
            raise NotImplementedError("File mode not supported")
        super().pipe_file(path, value, **kwargs)


for kind in (Careless, Ignorant):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has no hard links."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def test_disks_memory_and_buckets_do(tmp_path: Path, gcs_root: GcsRoot) -> None:
    assert creates_exclusively(open_storage(str(tmp_path / "root")))
    assert creates_exclusively(open_storage(f"memory://{tmp_path}"))
    assert creates_exclusively(open_storage(gcs_root.url, gcs_root.storage_options))


def test_a_disk_without_hard_links_does_not(without_links: None, tmp_path: Path) -> None:
    check_replaces(open_storage(str(tmp_path / "root")))


@pytest.mark.parametrize("protocol", ["careless", "ignorant"])
def test_a_file_system_that_ignores_or_refuses_the_mode_does_not(tmp_path: Path, protocol: str) -> None:
    check_replaces(open_storage(f"{protocol}://{tmp_path}"))


def check_replaces(storage: Storage) -> None:
    assert not creates_exclusively(storage)
    assert storage.put_if_absent("object", b"first")
    assert storage.put_if_absent("object", b"second")
    assert storage.read("object") == b"second"


def test_another_error_of_a_disk_is_no_lack_of_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", fill)
    with pytest.raises(StorageError, match="No space left"):
        open_storage(str(tmp_path)).put_if_absent("object", b"data")


def test_it_is_asked_once_for_each_root_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(str(tmp_path / "root"))
    assert creates_exclusively(storage)
    assert list(tmp_path.rglob("*.*")) == []
    assert storage.sizes("probes") == {}
    written = ReadOnlyStorage(storage)  # of the same URL: what would be written is an error
    assert creates_exclusively(written)
    assert creates_exclusively(LayeredStorage(written, (written,)))


def test_where_nothing_can_be_written_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="opened for reading only"):
        creates_exclusively(ReadOnlyStorage(open_storage(str(tmp_path))))
