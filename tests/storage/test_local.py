"""What is particular to storage on a disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from distill_ray.errors import StorageError
from distill_ray.storage import LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(str(tmp_path / "root"))


def test_nothing_is_left_beside_the_objects(storage: LocalStorage) -> None:
    storage.publish("folder/a", b"1")
    storage.put_if_absent("folder/a", b"2")
    storage.put_if_absent("folder/b", b"3")
    assert names(storage, "folder") == ["a", "b"]


def test_what_a_killed_writer_left_behind_is_not_listed(storage: LocalStorage) -> None:
    storage.publish("folder/a", b"1")
    Path(storage.url, "folder", ".tmp-0123").write_bytes(b"half")
    assert storage.sizes("folder") == {"a": 1}
    assert storage.leftovers("folder") == {".tmp-0123": 4}


def test_a_killed_writer_leaves_the_object_as_it_was(storage: LocalStorage) -> None:
    old, new = b"old" * 1_000_000, b"new" * 1_000_000
    storage.publish("object", old)
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        writer = context.Process(target=publish_for_ever, args=(storage, new))
        writer.start()
        before = names(storage)
        while names(storage) == before:  # until it is in the middle of writing
            time.sleep(0.001)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert storage.read("object") in {old, new}


def names(storage: LocalStorage, folder: str = "") -> list[str]:
    return sorted(path.name for path in Path(storage.url, folder).iterdir())


def publish_for_ever(storage: LocalStorage, data: bytes) -> None:
    while True:
        storage.publish("object", data)


def test_a_listing_survives_files_that_vanish_while_it_is_made(storage: LocalStorage) -> None:
    storage.publish("folder/stays", b"1")
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            for number in range(20):
                Path(storage.url, "folder", f"goes-{number}").write_bytes(b"")
            storage.delete(f"folder/goes-{number}" for number in range(20))

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(200):
            assert storage.sizes("folder")["stays"] == 1
    finally:
        done.set()
        thread.join()


def test_a_writer_in_every_process_and_one_winner(storage: LocalStorage) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for round_ in range(10):
            won = pool.starmap(storage.put_if_absent, [(f"race/{round_}", b"%d" % n) for n in range(4)])
            assert won.count(True) == 1
            assert storage.read(f"race/{round_}") == b"%d" % won.index(True)


def test_an_error_names_the_file_and_what_was_tried(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(StorageError, match=r"Cannot write .*/root/folder/object: (NotADirectory|FileExists)"):
        storage.publish("folder/object", b"")
    with pytest.raises(StorageError, match=r"Cannot list .*/root/folder: NotADirectoryError"):
        storage.sizes("folder")


def test_reading_a_folder_is_an_error_not_an_absence(storage: LocalStorage) -> None:
    storage.publish("folder/object", b"")
    with pytest.raises(StorageError, match="Cannot read"):
        storage.read("folder")
    with pytest.raises(StorageError, match="Cannot delete"):
        storage.delete(["folder"])
