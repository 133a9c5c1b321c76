"""What is particular to storage on a disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distill_ray.errors import StorageError
from distill_ray.storage import LocalStorage, local


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


WRITER = """
import sys
from distill_ray.storage.local import LocalStorage

storage, data = LocalStorage(sys.argv[1]), bytes(1 << 20)
print("begins", flush=True)
while True:
    storage.publish("folder/one", data)
    storage.put_if_absent(f"folder/{id(object())}", data)
"""


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_half_done(storage: LocalStorage) -> None:
    for pause in (0.005, 0.01, 0.02, 0.04):
        with subprocess.Popen([sys.executable, "-c", WRITER, storage.url], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(pause)
            writer.kill()
    assert set(storage.sizes("folder").values()) <= {1 << 20}
    assert sum(storage.leftovers("folder").values()) % (1 << 20) == 0


def test_a_disk_that_cannot_write_without_a_name_leaves_none_either(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_nameless", lambda _folder: None)
    storage.publish("folder/a", b"1")
    storage.publish("folder/a", b"2")
    assert storage.put_if_absent("folder/b", b"3")
    assert not storage.put_if_absent("folder/b", b"4")
    assert (storage.read("folder/a"), storage.read("folder/b")) == (b"2", b"3")
    assert names(storage, "folder") == ["a", "b"]
