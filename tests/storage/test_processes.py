"""A storage in other processes: each opens its own file system, once, and takes none along."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from distill_ray.storage import ObjectStorage, Storage, is_shared, open_storage
from tests.faulty_proxy import FaultyProxy
from tests.gcs_server import GcsRoot
from tests.s3_server import S3Root


@pytest.fixture(params=["gs", "s3"])
def storage(request: pytest.FixtureRequest) -> ObjectStorage:
    """A place in a bucket that this process has used."""
    name = {"gs": "gcs_root", "s3": "s3_root"}[request.param]
    root: GcsRoot | S3Root = request.getfixturevalue(name)
    storage = open_storage(root.url, root.storage_options)
    storage.publish("object", b"data")
    assert isinstance(storage, ObjectStorage)
    return storage


def use(storage: Storage) -> tuple[int, bytes, bool]:
    """Read and write it in this process, and say which process it is."""
    data = storage.read("object")
    return os.getpid(), data, storage.below("folder").put_if_absent(f"{os.getpid()}", data)


def test_a_fork_reads_and_writes_by_itself(storage: ObjectStorage) -> None:
    child = os.fork()
    if child == 0:
        gave: Any = None
        try:
            gave = use(storage)[1:]
        finally:
            os._exit(0 if gave == (b"data", True) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert use(storage)[1:] == (b"data", True)
    assert set(storage.sizes("folder")) == {str(child), str(os.getpid())}


@pytest.mark.parametrize("storage", ["gs", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_a_process_that_was_spawned_reads_and_writes_by_itself(storage: ObjectStorage) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        process, *gave = pool.submit(use, storage).result()
    assert process != os.getpid()
    assert gave == [b"data", True]


def test_neither_a_connection_nor_a_file_system_goes_along(storage: ObjectStorage) -> None:
    sent = pickle.dumps(storage)
    assert len(sent) < 600
    for module in (b"gcsfs", b"s3fs", b"aiohttp", b"fsspec"):
        assert module not in sent


def test_a_process_opens_one_file_system_however_many_threads_and_folders_use_it(
    far_root: GcsRoot, faulty_proxy: FaultyProxy
) -> None:
    import gcsfs.core

    opened: list[object] = []
    begin = gcsfs.core.GCSFileSystem.__init__

    def counted(self: object, *args: Any, **kwargs: Any) -> None:
        opened.append(self)
        begin(self, *args, **kwargs)

    storage = open_storage(far_root.url, far_root.storage_options)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as pool:
        patch.setattr(gcsfs.core.GCSFileSystem, "__init__", counted)
        folders = [storage.below(f"{number % 3}") for number in range(24)]
        list(pool.map(lambda folder: folder.publish("object", b""), folders))
    assert len(opened) == 1


def test_a_store_whose_client_is_absent_says_what_to_install() -> None:
    code = """if True:
        import sys
        from distill_ray.storage import open_storage
        sys.modules.update(s3fs=None, adlfs=None)
        for url in ("s3://bucket/cache", "az://container/cache"):
            try:
                open_storage(url).read("object")
            except Exception as error:
                print(type(error).__name__, error)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    for said, url, extra in zip(
        ran.stdout.splitlines(), ("s3://bucket", "az://container"), ("s3", "azure"), strict=True
    ):
        assert said.startswith(f"StorageError Cannot open '{url}/cache")
        assert said.endswith(f"Install its client: pip install 'distill-ray[{extra}]'.")


def test_what_one_process_keeps_in_its_memory_is_not_shared() -> None:
    assert [url for url in ("memory://x", "filecache::memory://x") if is_shared(url)] == []
    urls = ("gs://b", "s3://b", "az://c", "/srv/memory", "memory", "file:///x", "gs://memory")
    assert all(map(is_shared, urls))
