"""What is particular to storage in a bucket."""

from __future__ import annotations

import os
import pickle
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import StorageError
from distill_ray.storage import ObjectStorage, Storage, open_storage
from tests.gcs_server import GcsRoot
from tests.storage.losing_proxy import LosingProxy


@pytest.fixture
def storage(gcs_root: GcsRoot) -> Storage:
    return open_storage(gcs_root.url, gcs_root.storage_options)


@pytest.fixture
def proxy(gcs_endpoint: str) -> Iterator[LosingProxy]:
    proxy = LosingProxy(gcs_endpoint)
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def lossy(gcs_root: GcsRoot, proxy: LosingProxy) -> Storage:
    """The same place, behind a connection that loses replies when told to."""
    return open_storage(gcs_root.url, {**gcs_root.storage_options, "endpoint_url": proxy.url})


def test_its_options_are_not_shown() -> None:
    storage = ObjectStorage("gs://bucket", {"token": "hunter2"})
    assert "hunter2" not in repr(storage)
    assert "hunter2" not in f"{storage}"


def test_options_go_along_but_no_connection(storage: Storage) -> None:
    storage.publish("object", b"data")
    assert len(pickle.dumps(storage)) < 500


def test_a_bucket_that_is_not_there_is_an_error_on_writing(gcs_root: GcsRoot) -> None:
    storage = open_storage("gs://no-such-bucket/cache", gcs_root.storage_options)
    for write in (storage.publish, storage.put_if_absent):
        with pytest.raises(StorageError, match="Cannot write gs://no-such-bucket/cache/object"):
            write("object", b"data")


def test_without_credentials_nothing_is_tried_anonymously(tmp_path: Path) -> None:
    """An anonymous client would take a private bucket for an empty one."""
    code = """if True:
        from distill_ray.storage import open_storage
        try:
            open_storage("gs://bucket").read("object")
        except Exception as error:
            print(type(error).__name__, error)
    """
    kept = {name: os.environ[name] for name in ("PATH", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT")}
    environment = {**kept, "HOME": str(tmp_path), "NO_GCE_CHECK": "true"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert ran.stdout.startswith(b"StorageError Cannot read gs://bucket/object: DefaultCredentialsError")


def test_a_process_that_was_forked_opens_its_own_connection(storage: Storage) -> None:
    storage.publish("object", b"data")
    child = os.fork()
    if child == 0:
        os._exit(0 if storage.read("object") == b"data" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_large_objects_are_checked_and_read_back(storage: Storage) -> None:
    data = secrets.token_bytes(1 << 20) * 51  # gcsfs sends more than 50 MiB in several requests
    storage.publish("object", data)
    assert storage.read("object") == data


def test_a_put_whose_reply_was_lost_counts_as_made(lossy: Storage, proxy: LosingProxy) -> None:
    lossy.sizes("folder")  # the connection stands
    proxy.lose_replies(1)
    assert lossy.put_if_absent("object", b"ours")
    assert proxy.lost == 1
    assert lossy.read("object") == b"ours"


def test_a_put_that_comes_second_is_told_so_though_replies_are_lost(
    storage: Storage, lossy: Storage, proxy: LosingProxy
) -> None:
    storage.put_if_absent("object", b"theirs")
    proxy.lose_replies(1)
    assert not lossy.put_if_absent("object", b"ours")
    assert storage.read("object") == b"theirs"


def test_a_delete_whose_reply_was_lost_is_no_error(lossy: Storage, proxy: LosingProxy) -> None:
    lossy.publish("object", b"data")
    proxy.lose_replies(1)
    lossy.delete(["object"])
    assert proxy.lost == 1
    with pytest.raises(FileNotFoundError):
        lossy.read("object")


def test_fsspecs_configuration_is_heard(gcs_root: GcsRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    settings: dict[str, Any] = {"gs": gcs_root.storage_options}
    monkeypatch.setattr(fsspec.config, "conf", settings)
    storage = open_storage(gcs_root.url)
    storage.publish("object", b"data")
    assert storage.read("object") == b"data"
