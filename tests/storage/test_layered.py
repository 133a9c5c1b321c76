"""Several roots as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_ray.errors import StorageError
from distill_ray.storage import LayeredStorage, LocalStorage, ReadOnlyStorage


@pytest.fixture
def roots(tmp_path: Path) -> list[LocalStorage]:
    return [LocalStorage(str(tmp_path / f"root-{number}")) for number in range(3)]


@pytest.fixture
def storage(roots: list[LocalStorage]) -> LayeredStorage:
    first, *others = roots
    return LayeredStorage(first, tuple(ReadOnlyStorage(each) for each in others))


def test_an_object_is_read_from_the_first_root_that_has_it(
    storage: LayeredStorage, roots: list[LocalStorage]
) -> None:
    for number in (2, 1, 0):
        roots[number].publish("folder/object", b"from %d" % number)
        assert storage.read("folder/object") == b"from %d" % number
        assert storage.read_tail("folder/object", 1) == b"%d" % number


def test_an_object_that_no_root_has_is_not_found(storage: LayeredStorage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("absent")
    with pytest.raises(FileNotFoundError):
        storage.read_tail("absent", 1)


def test_a_listing_is_of_all_roots_and_has_the_sizes_of_what_is_read(
    storage: LayeredStorage, roots: list[LocalStorage]
) -> None:
    for number, names in enumerate(("a", "ab", "abc")):
        for name in names:
            roots[number].publish(f"folder/{name}/x", b"")
            roots[number].publish(f"{name}", b"x" * (number + 1))
    assert storage.sizes("") == {"a": 1, "b": 2, "c": 3}
    assert storage.folders("folder") == ["a", "b", "c"]


def test_only_the_first_root_is_written_to(storage: LayeredStorage, roots: list[LocalStorage]) -> None:
    roots[1].publish("object", b"theirs")
    storage.publish("published", b"1")
    assert storage.put_if_absent("object", b"ours")
    assert not storage.put_if_absent("object", b"another")
    assert roots[0].sizes("") == {"published": 1, "object": 4}
    assert roots[1].sizes("") == {"object": 6}
    assert storage.read("object") == b"ours"


def test_what_is_deleted_in_another_root_is_hidden_and_stays_there(
    storage: LayeredStorage, roots: list[LocalStorage]
) -> None:
    roots[1].publish("parts/theirs", b"damaged")
    roots[0].publish("parts/both", b"ours")
    roots[2].publish("parts/both", b"theirs")
    storage.publish("parts/ours", b"data")
    storage.delete(["parts/theirs", "parts/both", "parts/ours", "parts/absent"])
    assert storage.sizes("parts") == {"theirs": 0, "both": 0}
    assert storage.read("parts/theirs") == b""
    assert roots[1].read("parts/theirs") == b"damaged"
    storage.publish("parts/theirs", b"whole")
    assert storage.read("parts/theirs") == b"whole"


def test_an_object_right_below_the_root_is_hidden_too(
    storage: LayeredStorage, roots: list[LocalStorage]
) -> None:
    roots[1].publish("object", b"theirs")
    storage.delete(["object"])
    assert storage.sizes("") == {"object": 0}


def test_a_root_that_cannot_be_read_is_an_error_that_names_it(
    storage: LayeredStorage, roots: list[LocalStorage]
) -> None:
    Path(roots[1].url).write_text("a file")
    with pytest.raises(StorageError, match=f"Cannot read {roots[1].url}/object"):
        storage.read("object")
    with pytest.raises(StorageError, match=f"Cannot list {roots[1].url}/folder"):
        storage.sizes("folder")


def test_a_folder_of_all_roots_is_a_storage_of_its_own(
    storage: LayeredStorage, roots: list[LocalStorage]
) -> None:
    roots[1].publish("scopes/a/object", b"theirs")
    below = storage.below("scopes/a")
    assert below.url == f"{roots[0].url}/scopes/a"
    assert below.read("object") == b"theirs"
    below.publish("object", b"ours")
    assert roots[0].read("scopes/a/object") == b"ours"
