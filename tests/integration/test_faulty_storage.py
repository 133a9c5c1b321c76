"""What a far bucket does costs no row and no work; listings that lag cost the work that they do not show."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cache import paths
from distill_ray.cache.heartbeat import Beat
from distill_ray.cache.lease import Busy, Held, Leases
from distill_ray.errors import DistillRayError
from distill_ray.pipeline import running
from distill_ray.storage import Storage, open_storage
from tests.faulty_proxy import FaultyProxy, Request
from tests.gcs_server import GcsRoot
from tests.integration.counted_chain import COMPUTED, FIRST, MOMENTS, ROWS, Root, expected_rows, rows_of
from tests.storage.losing_proxy import LosingProxy


@pytest.fixture
def proxy(gcs_endpoint: str) -> Iterator[LosingProxy]:
    proxy = LosingProxy(gcs_endpoint)
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def losing_root(gcs_bucket: str, gcs_options: dict[str, Any], proxy: LosingProxy, tmp_path: Path) -> Root:
    """A root in a bucket behind that proxy."""
    return Root(f"gs://{gcs_bucket}/{tmp_path.name}", {**gcs_options, "endpoint_url": proxy.url})


@pytest.fixture(autouse=True)
def _no_moments() -> Iterator[None]:
    yield
    MOMENTS.clear()


@pytest.mark.slow
def test_lost_replies_to_creates_cost_no_row(losing_root: Root, proxy: LosingProxy) -> None:
    """The lease, the preimage, the manifest: each was created, and the run never heard of it."""
    proxy.lose_replies(1_000, to=b"ifGenerationMatch=0", every=2)
    steps = ("double", "add", "last")
    made = losing_root.run()
    assert proxy.lost >= 13, "of the format, and of the lease, the preimage and the manifest of four steps"
    assert rows_of(made) == expected_rows()
    assert dict.fromkeys(steps, ROWS) == COMPUTED
    assert made.report.unguarded == ""
    again = losing_root.run()
    assert rows_of(again) == expected_rows()
    assert not COMPUTED


@pytest.mark.parametrize(
    "step", ["double", *(pytest.param(s, marks=pytest.mark.slow) for s in ("add", "last"))]
)
def test_lost_replies_in_the_middle_of_a_run_cost_no_row(
    losing_root: Root, proxy: LosingProxy, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.05")
    for row in (0, FIRST, ROWS - 1):
        MOMENTS[step, row] = lambda: proxy.lose_replies(2)
    assert rows_of(losing_root.run()) == expected_rows()
    assert proxy.lost >= 2
    assert dict.fromkeys(("double", "add", "last"), ROWS) == COMPUTED
    assert rows_of(losing_root.run()) == expected_rows()
    assert not COMPUTED


@pytest.fixture
def breaking_root(far_root: GcsRoot) -> Root:
    """A root in a bucket, whose requests can be broken in all ways."""
    return Root(far_root.url, far_root.storage_options)


STEPS = ("double", "add", "last")


@pytest.mark.parametrize("rate", [0.05, pytest.param(0.2, marks=pytest.mark.slow)])
def test_a_share_of_all_requests_fails_and_the_rows_are_the_same(
    breaking_root: Root, faulty_proxy: FaultyProxy, rate: float
) -> None:
    faulty_proxy.inject(rate)
    breaking_root.run(FIRST)
    assert dict.fromkeys(STEPS, FIRST) == COMPUTED
    assert rows_of(breaking_root.run()) == expected_rows()
    assert dict.fromkeys(STEPS, ROWS - FIRST) == COMPUTED
    check_next_run_is_a_hit(breaking_root)
    assert faulty_proxy.faults()


@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_store_that_is_down_in_the_middle_of_a_run_is_waited_for(
    breaking_root: Root, faulty_proxy: FaultyProxy, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.05")
    MOMENTS["add", FIRST] = lambda: faulty_proxy.be_down(seconds)
    assert rows_of(breaking_root.run()) == expected_rows()
    assert faulty_proxy.faults()["down"]
    assert dict.fromkeys(STEPS, ROWS) == COMPUTED
    check_next_run_is_a_hit(breaking_root)


@pytest.mark.parametrize("step", STEPS)
def test_a_part_that_is_refused_for_good_ends_the_run_and_nothing_of_it_is_seen(
    breaking_root: Root, faulty_proxy: FaultyProxy, step: str
) -> None:
    of_step = step.capitalize()

    def is_part(request: Request) -> bool:
        return (
            request.kind == "write" and f"/{step.capitalize()}-" in request.name and "/parts/" in request.name
        )

    faulty_proxy.refuse(is_part, 403, "not yours")
    with pytest.raises(DistillRayError, match=rf"(?s){step}.*not yours.*roles/storage\.objectUser"):
        breaking_root.run()
    assert not breaking_root.paths(f"steps/{of_step}-*/parts/*")
    assert not breaking_root.paths(f"steps/{of_step}-*/outputs/*")
    done = {above: COMPUTED[above] for above in STEPS[: STEPS.index(step)]}
    faulty_proxy.behave()
    assert rows_of(breaking_root.run()) == expected_rows()
    assert {above: COMPUTED[above] + rows for above, rows in done.items()} == dict.fromkeys(done, ROWS)
    check_next_run_is_a_hit(breaking_root)


@dataclass(frozen=True)
class StaleListings:
    """A storage whose listings are as old as may be: one is given again until it is so many seconds old."""

    inner: Storage
    seconds: float
    _listed: dict[tuple[str, str], tuple[float, Any]] = field(default_factory=dict, hash=False)

    @property
    def url(self) -> str:
        return self.inner.url

    def read(self, path: str) -> bytes:
        return self.inner.read(path)

    def read_tail(self, path: str, count: int) -> bytes:
        return self.inner.read_tail(path, count)

    def publish(self, path: str, data: bytes) -> None:
        self.inner.publish(path, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self.inner.put_if_absent(path, data)

    def sizes(self, folder: str) -> dict[str, int]:
        listed: dict[str, int] = self._old("sizes", folder)
        return listed

    def folders(self, folder: str) -> list[str]:
        listed: list[str] = self._old("folders", folder)
        return listed

    def leftovers(self, folder: str) -> dict[str, int]:
        return self.inner.leftovers(folder)

    def delete(self, paths: Iterable[str]) -> None:
        self.inner.delete(paths)

    def below(self, folder: str) -> Storage:
        return StaleListings(self.inner.below(folder), self.seconds)

    def _old(self, kind: str, folder: str) -> Any:
        at, listed = self._listed.get((kind, folder), (-self.seconds, None))
        if time.monotonic() - at >= self.seconds:
            at, listed = time.monotonic(), getattr(self.inner, kind)(folder)
            self._listed[kind, folder] = at, listed
        return listed


class Lagging:
    """Has all runs see one storage whose listings lag behind, until told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._stores: dict[str, StaleListings] = {}

    def lag(self, seconds: float) -> None:
        def open_lagging(url: str, options: Any = None) -> Storage:
            return self._stores.setdefault(url, StaleListings(open_storage(url, options), seconds))

        self._stores.clear()
        self._monkeypatch.setattr(running, "open_storage", open_lagging)

    def catch_up(self) -> None:
        self._monkeypatch.setattr(running, "open_storage", open_storage)


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch) -> Lagging:
    return Lagging(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(str(tmp_path / "root"))


def check_next_run_is_a_hit(root: Root, amount: int = 0) -> None:
    assert rows_of(root.run(amount=amount)) == expected_rows(amount)
    assert not COMPUTED


def test_parts_that_are_not_listed_yet_are_computed_again_and_nothing_else(
    root: Root, lagging: Lagging
) -> None:
    lagging.lag(seconds=3600)
    root.run(FIRST)  # lists every folder while it is empty
    made = root.run()
    assert rows_of(made) == expected_rows()
    assert all(rows <= ROWS for rows in COMPUTED.values())
    lagging.catch_up()
    check_next_run_is_a_hit(root)


def test_a_hit_whose_parts_are_not_listed_yet_is_computed_again_and_said(
    root: Root, lagging: Lagging
) -> None:
    lagging.lag(seconds=3600)
    root.run()
    made = root.run()
    assert rows_of(made) == expected_rows()
    assert COMPUTED == {"last": ROWS}, "what it is made from is listed by nobody, and read"
    assert "parts are gone or cut" in made.report.repairs[0]
    lagging.catch_up()
    check_next_run_is_a_hit(root)


@pytest.mark.parametrize("seconds", [0.5, 2])
def test_a_part_that_is_listed_though_it_is_gone_is_computed_again(
    root: Root, lagging: Lagging, seconds: float
) -> None:
    root.fill()
    lagging.lag(seconds)
    root.declare(amount=1).plan()  # lists the parts
    root.storage.delete([root.part_with(ROWS - 1, "steps/Add-*/parts/*")])
    made = root.run(amount=1)
    assert rows_of(made) == expected_rows(1)
    assert COMPUTED == {"add": ROWS - FIRST, "last": ROWS}
    assert made.report.repairs
    lagging.catch_up()
    check_next_run_is_a_hit(root, 1)


def test_a_lease_that_is_not_listed_yet_is_found_all_the_same(root: Root) -> None:
    storage = StaleListings(open_storage(root.url), seconds=3600)
    assert storage.sizes(paths.LEASES_FOLDER) == {}
    for run in ("first", "second"):
        storage.publish(paths.heartbeat(run), Beat(run=run).to_json())
    outputs = {"output": "step"}
    assert isinstance(Leases(storage, "first", 2.0).acquire(outputs)["output"], Held)
    assert isinstance(Leases(storage, "second", 2.0).acquire(outputs)["output"], Busy)
