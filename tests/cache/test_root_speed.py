"""How a root answers is measured, and nothing is left of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_ray.cache.root_speed import measure_root
from distill_ray.errors import StorageError
from distill_ray.storage import open_storage
from tests.faulty_proxy import FaultyProxy
from tests.gcs_server import GcsRoot


def test_a_bucket_is_measured(far_root: GcsRoot, faulty_proxy: FaultyProxy) -> None:
    storage = open_storage(far_root.url, far_root.storage_options)
    speed = measure_root(storage)
    assert 0 < speed.read_ms < 10_000
    assert 0 < speed.write_ms < 10_000
    assert speed.read_bytes > 0
    assert speed.write_bytes > 0
    assert speed.exclusive
    assert storage.sizes("probes") == {}


def test_a_root_that_cannot_be_written_to_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        measure_root(open_storage(str(tmp_path / "file" / "root")))


def test_what_may_only_be_read_is_told(far_root: GcsRoot, faulty_proxy: FaultyProxy) -> None:
    faulty_proxy.refuse(lambda request: request.kind == "write", 403)
    with pytest.raises(StorageError, match=r"roles/storage\.objectUser"):
        measure_root(open_storage(far_root.url, far_root.storage_options))
