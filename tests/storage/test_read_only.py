"""A storage that nothing is written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_ray.errors import StorageError
from distill_ray.storage import LocalStorage, ReadOnlyStorage


def test_it_reads_and_lists_and_refuses_to_write(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    storage.publish("folder/object", b"data")
    read_only = ReadOnlyStorage(storage)
    for opened in (read_only, ReadOnlyStorage(LocalStorage(str(tmp_path.parent))).below(tmp_path.name)):
        assert opened.url == storage.url
        assert opened.read("folder/object") == b"data"
        assert opened.read_tail("folder/object", 2) == b"ta"
        assert opened.sizes("folder") == {"object": 4}
        assert opened.folders("") == ["folder"]
        assert opened.leftovers("folder") == {}
        opened.delete([])
        refused = f"{tmp_path}/new: the root was opened for reading only"
        with pytest.raises(StorageError, match=refused):
            opened.publish("new", b"")
        with pytest.raises(StorageError, match=refused):
            opened.put_if_absent("new", b"")
        with pytest.raises(StorageError, match=refused):
            opened.delete(["new"])
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "object"]
