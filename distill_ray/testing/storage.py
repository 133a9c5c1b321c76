"""What every storage must do, as tests to inherit.

Example:
    ```python
    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self, tmp_path):
            return MyStorage(...)
    ```
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from distill_ray.storage import Storage


class StorageContract:
    """Inherit, and give a fixture ``storage``: an empty one for each test."""

    def test_what_is_published_is_read_back_whole(self, storage: Storage) -> None:
        for data in (b"", b"x", bytes(range(256)) * 4096, b"\r\n--==0==--\r\n"):
            storage.publish("folder/object", data)
            assert storage.read("folder/object") == data

    def test_what_is_published_replaces_what_was_there(self, storage: Storage) -> None:
        storage.publish("object", b"the first, and longer")
        storage.publish("object", b"second")
        assert storage.read("object") == b"second"

    def test_an_object_that_is_absent_is_not_found(self, storage: Storage) -> None:
        storage.publish("folder/object", b"data")
        for path in ("absent", "folder/absent", "no/such/folder"):
            with pytest.raises(FileNotFoundError):
                storage.read(path)
            with pytest.raises(FileNotFoundError):
                storage.read_tail(path, 10)

    def test_the_tail_is_the_last_bytes_or_all_there_are(self, storage: Storage) -> None:
        storage.publish("object", b"0123456789")
        assert storage.read_tail("object", 3) == b"789"
        assert storage.read_tail("object", 10) == b"0123456789"
        assert storage.read_tail("object", 1000) == b"0123456789"

    def test_the_first_put_stays(self, storage: Storage) -> None:
        assert storage.put_if_absent("folder/object", b"first")
        assert not storage.put_if_absent("folder/object", b"second")
        assert storage.read("folder/object") == b"first"

    def test_a_put_of_what_is_there_already_counts_as_made(self, storage: Storage) -> None:
        assert storage.put_if_absent("object", b"same")
        assert storage.put_if_absent("object", b"same")

    def test_of_many_puts_at_once_exactly_one_wins(self, storage: Storage) -> None:
        for round_ in range(5):
            path = f"race/{round_}"
            offers = [f"writer {number}".encode() for number in range(8)]
            with ThreadPoolExecutor(len(offers)) as pool:
                won = list(pool.map(lambda data, path=path: storage.put_if_absent(path, data), offers))
            assert won.count(True) == 1
            assert storage.read(path) == offers[won.index(True)]

    def test_a_put_after_a_delete_is_made(self, storage: Storage) -> None:
        storage.put_if_absent("object", b"first")
        storage.delete(["object"])
        assert storage.put_if_absent("object", b"second")

    def test_a_listing_has_the_objects_right_below_a_folder_with_their_sizes(self, storage: Storage) -> None:
        storage.publish("folder/a", b"1")
        storage.publish("folder/b.parquet", b"22")
        storage.publish("folder/below/c", b"333")
        storage.publish("folder-too/d", b"4444")
        assert storage.sizes("folder") == {"a": 1, "b.parquet": 2}

    def test_folders_are_listed_by_name_where_something_stands_in_them(self, storage: Storage) -> None:
        assert storage.folders("") == []
        assert storage.folders("folder") == []
        storage.publish("object", b"0")
        storage.publish("folder/a", b"1")
        storage.publish("folder/second/below/c", b"333")
        storage.publish("folder/first/c", b"333")
        storage.publish("folder-too/d", b"4444")
        assert storage.folders("") == ["folder", "folder-too"]
        assert storage.folders("folder") == ["first", "second"]
        assert storage.folders("folder/second") == ["below"]
        assert storage.folders("folder/second/below") == []
        assert storage.sizes("") == {"object": 1}

    def test_writes_that_came_to_their_end_leave_nothing_behind(self, storage: Storage) -> None:
        assert storage.leftovers("folder") == {}
        storage.publish("folder/a", b"1")
        storage.put_if_absent("folder/a", b"2")
        storage.put_if_absent("folder/b", b"2")
        assert storage.leftovers("folder") == {}

    def test_a_listing_is_never_out_of_date(self, storage: Storage) -> None:
        assert storage.sizes("folder") == {}
        storage.publish("folder/a", b"1")
        assert storage.sizes("folder") == {"a": 1}
        storage.publish("folder/a", b"longer")
        storage.publish("folder/b", b"")
        assert storage.sizes("folder") == {"a": 6, "b": 0}
        storage.delete(["folder/a"])
        assert storage.sizes("folder") == {"b": 0}

    def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(self, storage: Storage) -> None:
        storage.publish("folder/a", b"1")
        storage.publish("folder/b", b"2")
        storage.delete(["folder/a", "folder/absent", "no/such/folder"])
        storage.delete(["folder/a"])
        storage.delete([])
        with pytest.raises(FileNotFoundError):
            storage.read("folder/a")
        assert storage.read("folder/b") == b"2"

    def test_readers_see_one_version_or_the_other_while_it_is_replaced(self, storage: Storage) -> None:
        versions = [bytes([number]) * 200_000 for number in range(2)]
        storage.publish("object", versions[0])
        with ThreadPoolExecutor(1) as pool:
            writing = [pool.submit(storage.publish, "object", versions[number % 2]) for number in range(20)]
            seen = [storage.read("object") for _ in range(20)]
        for write in writing:
            write.result()
        assert set(seen) <= set(versions)

    def test_names_may_hold_what_our_names_hold(self, storage: Storage) -> None:
        path = "steps/Class_A.b~0123-ab/parts/20250101T000000-ff-000-00001-ab.parquet"
        storage.publish(path, b"data")
        assert storage.read(path) == b"data"

    def test_a_folder_is_a_storage_of_its_own(self, storage: Storage) -> None:
        below = storage.below("folder/a")
        assert below.url == f"{storage.url}/folder/a"
        assert below.sizes("") == {}
        below.publish("b/object", b"data")
        assert storage.read("folder/a/b/object") == below.read("b/object") == b"data"
        assert below.folders("") == ["b"]

    def test_a_copy_that_was_sent_elsewhere_reads_and_writes_the_same_place(self, storage: Storage) -> None:
        storage.publish("object", b"data")
        copy: Storage = pickle.loads(pickle.dumps(storage))  # noqa: S301 - our own bytes
        assert copy.url == storage.url
        assert copy.read("object") == b"data"
        copy.publish("other", b"more")
        assert storage.read("other") == b"more"
