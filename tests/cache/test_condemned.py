"""Records of what is to go are read back as they were written, in pieces of a bounded size."""

from __future__ import annotations

from distill_ray.cache.condemned import CHUNK, Clutter, make_records, read_condemned, record_names
from distill_ray.cache.gc import Condemned
from distill_ray.cache.store import CacheStore
from tests.cache.made_cache import FUNCTION, OTHER


def test_a_record_is_read_back(store: CacheStore) -> None:
    parts = [Condemned("", FUNCTION, "a", 1, ""), Condemned("scopes/x", OTHER, "b", 2, "")]
    clutter = [Clutter(kind="lease", place="", path="leases/x.1", size=3, run="r")]
    records = list(make_records(parts, clutter, at=1.5, grace=60))
    for record in records:
        record.write(store.storage)
    assert record_names(store.storage) == [record.name for record in records]
    assert [read_condemned(store.storage, record.name) for record in records] == records
    assert sum(record.size for record in records) == 6
    assert [(each.function, each.sizes) for each in records[0].parts] == [
        (FUNCTION, {"a": 1}),
        (OTHER, {"b": 2}),
    ]


def test_much_is_kept_in_several_records() -> None:
    parts = [Condemned("", FUNCTION, str(number), 1, "") for number in range(CHUNK + 1)]
    records = list(make_records(parts, (), at=0, grace=0))
    assert [record.size for record in records] == [CHUNK, 1]
    assert len({record.name for record in records}) == 2


def test_without_anything_to_go_there_is_no_record() -> None:
    assert list(make_records([], [], at=0, grace=0)) == []


def test_what_is_no_record_is_none(store: CacheStore) -> None:
    for name, data in (("a", b"{"), ("b", b"{}"), ("c", b'{"name":"c","at":0,"grace":-1}')):
        store.storage.publish(f"gc/{name}.json", data)
        assert read_condemned(store.storage, name) is None
    assert read_condemned(store.storage, "none") is None
