"""A bucket far away: what fails for a while costs time, what fails for good is said, and nothing is torn."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest

from distill_ray.cache.exclusive import creates_exclusively
from distill_ray.errors import ParameterError, StorageError
from distill_ray.storage import Storage, open_storage, patience
from distill_ray.testing import StorageContract
from tests.faulty_proxy import FaultyProxy, Request
from tests.gcs_server import GcsRoot
from tests.s3_server import S3Root

FRAMED = b"\r\n--==0==--\r\n"
"""What is sent in several requests, since gcsfs frames small objects by it."""


@pytest.fixture
def near(gcs_root: GcsRoot) -> Storage:
    """The place itself."""
    return open_storage(gcs_root.url, gcs_root.storage_options)


@pytest.fixture
def far(far_root: GcsRoot) -> Storage:
    """The same place, through the proxy."""
    return open_storage(far_root.url, far_root.storage_options)


@pytest.fixture
def s3_proxy(s3_endpoint: str) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(s3_endpoint)
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def far_s3(s3_root: S3Root, s3_proxy: FaultyProxy) -> Storage:
    return open_storage(s3_root.url, {**s3_root.storage_options, "endpoint_url": s3_proxy.url})


class TestGoogleCloudStorageThatFails(StorageContract):
    @pytest.fixture(params=[0.05, pytest.param(0.2, marks=pytest.mark.slow)])
    def storage(self, far: Storage, faulty_proxy: FaultyProxy, request: pytest.FixtureRequest) -> Storage:
        faulty_proxy.inject(request.param)
        return far


@pytest.mark.slow
class TestS3ThatFails(StorageContract):
    @pytest.fixture(params=[0.05, 0.2])
    def storage(self, far_s3: Storage, s3_proxy: FaultyProxy, request: pytest.FixtureRequest) -> Storage:
        s3_proxy.inject(request.param)
        return far_s3


def operations(storage: Storage) -> dict[str, Callable[[], Any]]:
    """One of each kind, and what it needs; all are to give True."""
    storage.publish("old", b"old")
    storage.publish("there/object", b"data")
    storage.publish("gone/object", b"")

    def publish() -> bool:
        storage.publish("new", b"new")
        return storage.read("new") == b"new"

    def delete() -> bool:
        storage.delete(["gone/object"])
        return storage.sizes("gone") == {}

    return {
        "read": lambda: storage.read("old") == b"old",
        "tail": lambda: storage.read_tail("old", 2) == b"ld",
        "list": lambda: storage.sizes("there") == {"object": 4},
        "folders": lambda: "there" in storage.folders(""),
        "publish": publish,
        "create": lambda: storage.put_if_absent("created", b"first"),
        "create second": lambda: not storage.put_if_absent("old", b"second"),
        "delete": delete,
    }


def check_all_survive(storage: Storage, proxy: FaultyProxy, seconds: float) -> None:
    asked = operations(storage)
    proxy.be_down(seconds)
    with ThreadPoolExecutor(len(asked)) as pool:
        gave = {name: pool.submit(act) for name, act in asked.items()}
    assert {name for name, each in gave.items() if each.result() is not True} == set()
    assert proxy.faults()["down"] >= len(asked)


def test_every_operation_survives_an_outage_which_is_said_once(
    far: Storage, faulty_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "_SILENT_SECONDS", 0.5)
    with caplog.at_level(logging.WARNING, "distill_ray"):
        check_all_survive(far, faulty_proxy, seconds=2.5)
    assert [message.partition("after")[0] for message in caplog.messages] == [
        "gs://cache-bucket cannot be used (503 Service Unavailable): it is being tried again.",
        "gs://cache-bucket can be used again, ",
    ]


@pytest.mark.slow
def test_every_operation_survives_ten_seconds(far: Storage, faulty_proxy: FaultyProxy) -> None:
    check_all_survive(far, faulty_proxy, seconds=10)


@pytest.mark.slow
def test_every_operation_survives_ten_seconds_on_s3(far_s3: Storage, s3_proxy: FaultyProxy) -> None:
    check_all_survive(far_s3, s3_proxy, seconds=10)


def test_a_single_failure_is_not_worth_a_word(
    far: Storage, faulty_proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    far.publish("object", b"data")
    faulty_proxy.inject(1, "503")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(far.read, "object")
        while not faulty_proxy.faults()["503"]:
            pass
        faulty_proxy.behave()
        assert reading.result() == b"data"
    assert not caplog.messages


def test_a_read_that_is_cut_is_never_taken_for_the_whole(far: Storage, faulty_proxy: FaultyProxy) -> None:
    data = secrets.token_bytes(300_000)
    far.publish("object", data)
    faulty_proxy.inject(0.5, "truncated", kinds=("read",))
    assert {far.read("object") for _ in range(3)} == {data}
    assert faulty_proxy.faults()["truncated"]


def test_a_listing_that_is_cut_is_never_taken_for_the_whole(far: Storage, faulty_proxy: FaultyProxy) -> None:
    for name in "abc":
        far.publish(f"folder/{name}", b"")
    faulty_proxy.inject(0.6, "truncated", kinds=("list",))
    assert far.sizes("folder") == {"a": 0, "b": 0, "c": 0}
    assert faulty_proxy.faults()["truncated"]


def test_a_client_that_gives_up_on_slow_answers_is_made_to_try_again(
    far_root: GcsRoot, faulty_proxy: FaultyProxy
) -> None:
    """gcsfs does not, after the time-out of a whole request."""
    impatient = {**far_root.storage_options, "requests_timeout": aiohttp.ClientTimeout(total=0.1)}
    storage = open_storage(far_root.url, impatient)
    storage.publish("object", b"data")
    faulty_proxy.inject(0.3, "delay")
    while not faulty_proxy.faults()["delay"]:
        assert storage.read("object") == b"data"


@pytest.mark.slow
def test_a_store_that_nobody_answers_for_is_given_up_with_what_to_do(
    gcs_root: GcsRoot, faulty_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_RAY_RETRY_SECONDS", "1")
    storage = open_storage(gcs_root.url, {**gcs_root.storage_options, "endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(StorageError, match=r"Cannot read gs://.*It was tried again in vain\. See whether"):
        storage.read("object")


def test_seconds_to_try_that_are_no_number_are_an_error(
    far: Storage, faulty_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_RAY_RETRY_SECONDS", "a while")
    with pytest.raises(ParameterError, match="DISTILL_RAY_RETRY_SECONDS must be a number of seconds"):
        patience.retry_seconds()


LOGIN = "gcloud auth application-default login.*GOOGLE_APPLICATION_CREDENTIALS.*workload identity.*storage_o"
ROLE = r"not yours.*roles/storage\.objectUser .*'cache-bucket'"


@pytest.mark.parametrize(
    ("status", "message", "what_to_do"), [(401, "Login Required.", LOGIN), (403, "not yours", ROLE)]
)
def test_what_is_refused_for_good_fails_at_once_and_says_what_to_do(
    far: Storage, faulty_proxy: FaultyProxy, status: int, message: str, what_to_do: str
) -> None:
    far.publish("object", b"data")
    faulty_proxy.refuse(lambda _: True, status, message)
    refused: dict[str, Callable[[], Any]] = {
        "read": lambda: far.read("object"),
        "write": lambda: far.publish("object", b""),
        "list": lambda: far.sizes(""),
        "delete": lambda: far.delete(["object"]),
    }
    for verb, act in refused.items():
        with faulty_proxy.counting() as requests, pytest.raises(StorageError) as error:
            act()
        assert len(requests) == 1
        error.match(rf"(?s)Cannot {verb} {far.url}.*{what_to_do}")
    with pytest.raises(StorageError, match=f"(?s)Cannot write .*{what_to_do}"):
        far.put_if_absent("new", b"")


def test_what_is_raised_is_not_logged_as_well(
    far: Storage, faulty_proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    faulty_proxy.refuse(lambda _: True, 401)
    with pytest.raises(StorageError):
        far.read("object")
    assert not caplog.records


def test_a_bucket_that_is_not_there_is_named_whatever_is_asked_of_it(
    gcs_root: GcsRoot, s3_root: S3Root
) -> None:
    for url, options, create in (
        (
            "gs://no-such-bucket",
            gcs_root.storage_options,
            "gcloud storage buckets create gs://no-such-bucket",
        ),
        ("s3://no-such-bucket", s3_root.storage_options, "aws s3 mb s3://no-such-bucket"),
    ):
        storage = open_storage(f"{url}/cache", options)
        said = f"There is no bucket 'no-such-bucket'.*{create}"
        with pytest.raises(StorageError, match=said):
            storage.sizes("folder")
        for write in (storage.publish, storage.put_if_absent):
            with pytest.raises(StorageError, match=said):
                write("object", b"")


@pytest.mark.parametrize("body", [b"new", FRAMED], ids=["at once", "in several requests"])
def test_a_write_that_fails_for_good_leaves_what_was_there(
    near: Storage, far: Storage, faulty_proxy: FaultyProxy, body: bytes
) -> None:
    def is_content(request: Request) -> bool:
        return request.kind == "write" and ("upload_id" in request.query or body is not FRAMED)

    near.publish("folder/old", b"old")
    faulty_proxy.refuse(is_content, 403)
    for write in (far.publish, far.put_if_absent):
        for path in ("folder/old", "folder/new"):
            if (write, path) != (far.put_if_absent, "folder/old"):
                with pytest.raises(StorageError, match=f"Cannot write .*{path}"):
                    write(path, body)
    assert near.sizes("folder") == {"old": 3}
    assert near.read("folder/old") == b"old"


@pytest.mark.slow
def test_a_large_object_is_what_was_sent_though_its_requests_fail(
    near: Storage, far: Storage, faulty_proxy: FaultyProxy
) -> None:
    """Where a reply is lost this server takes a piece twice: the digest tells, and all is sent again."""
    faulty_proxy.inject(0.3, "lost", "truncated", "503", kinds=("write",))
    data = secrets.token_bytes(1 << 20) * 101
    for start in range(3):
        far.publish("object", data[start:])
        assert near.read("object") == data[start:]


def test_requests_are_counted_by_what_they_are_about(far: Storage, faulty_proxy: FaultyProxy) -> None:
    far.publish("folder/object", FRAMED)
    far.read("folder/object")
    far.read_tail("folder/object", 3)
    far.sizes("folder")
    far.folders("empty")
    far.put_if_absent("other", b"")
    far.delete(["other"])
    assert faulty_proxy.counts() == {"write": 3, "read": 2, "list": 2, "delete": 1}


def test_a_store_that_knows_no_create_replaces_and_says_so_by_its_answers(
    far_s3: Storage, s3_proxy: FaultyProxy
) -> None:
    """As some stores do that speak S3: manifests are stored all the same, and leases known to be useless."""
    unknown = "<Error><Code>NotImplemented</Code><Message>What is that header?</Message></Error>"
    s3_proxy.refuse(lambda request: request.exclusive, 501, unknown)
    assert far_s3.put_if_absent("object", b"first")
    assert far_s3.put_if_absent("object", b"second")
    assert far_s3.read("object") == b"second"
    assert not creates_exclusively(far_s3)
