"""Two processes that find out whether they reach the same root: here two storages play their parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distill_ray.cache.root_probe import (
    RootProbe,
    answer_probe,
    leave_probe,
    remedy,
    remove_probe,
    wrong_answers,
)
from distill_ray.errors import StorageError
from distill_ray.storage import LayeredStorage, ReadOnlyStorage, Storage, open_storage
from tests.gcs_server import GcsRoot


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "root"))
    root: GcsRoot = request.getfixturevalue("gcs_root")
    return open_storage(root.url, root.storage_options)


def seen_at(probe: RootProbe, storage: Storage) -> RootProbe:
    """What another process makes of it, to which the root's URL means this storage."""
    return replace(probe, storage=storage)


def test_one_that_reaches_the_root_answers_and_nothing_is_left(storage: Storage) -> None:
    probe = leave_probe(storage)
    answer_probe(probe, "a")
    answer_probe(probe, "b")
    assert wrong_answers(probe, ["a", "b"]) == {}
    remove_probe(probe, ["a", "b", "one that never answered"])
    assert storage.sizes("probes") == {}


def test_one_that_sees_another_place_says_so_and_writes_nothing_there(
    storage: Storage, tmp_path: Path
) -> None:
    elsewhere = open_storage(str(tmp_path / "elsewhere"))
    with pytest.raises(StorageError, match="there is not what the driver sees here"):
        answer_probe(seen_at(leave_probe(storage), elsewhere), "a")
    assert elsewhere.sizes("probes") == {}


def test_an_answer_that_does_not_come_is_missed(storage: Storage) -> None:
    probe = leave_probe(storage)
    answer_probe(probe, "a")
    assert "not to be seen from the driver" in wrong_answers(probe, ["a", "b"])["b"]


def test_roots_that_are_only_read_must_show_what_they_show_the_driver(tmp_path: Path) -> None:
    mine, theirs = (open_storage(str(tmp_path / name)) for name in ("mine", "theirs"))
    theirs.publish("steps/one/signature.json", b"{}")
    probe = leave_probe(LayeredStorage(mine, (ReadOnlyStorage(theirs),)))
    answer_probe(probe, "a")
    assert set(theirs.folders("")) == {"steps"}

    theirs.publish("runs/later/run.json", b"{}")  # another run has begun meanwhile
    answer_probe(probe, "b")

    unmounted = ReadOnlyStorage(open_storage(str(tmp_path / "unmounted")))
    with pytest.raises(StorageError, match="lacks there what the driver sees in it: steps"):
        answer_probe(seen_at(replace(probe, folders={unmounted.url: frozenset({"steps"})}),
                             LayeredStorage(mine, (unmounted,))), "c")  # fmt: skip


def test_the_remedy_for_a_folder_is_a_bucket_or_a_mount() -> None:
    assert "give a bucket" in remedy("/home/me/cache")
    assert "a folder on a mount that all nodes share" in remedy("/home/me/cache")
    assert "network, the credentials and the settings" in remedy("gs://b/c")
