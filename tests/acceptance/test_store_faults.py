"""A bucket that is away for a while, and one that refuses for good, as a run on Ray meets them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distill_ray.distiset import Distiset
from distill_ray.errors import DistillRayError
from distill_ray.storage import open_storage
from tests.acceptance.conftest import wait_until
from tests.acceptance.killed_pipeline import (
    ROWS,
    STEPS,
    Settings,
    declare,
    read_work,
    told_of,
    wrong_rows,
)
from tests.faulty_proxy import FaultyProxy, Request
from tests.gcs_server import GcsRoot

PAD = 2_000
REFUSAL = "does not have storage.objects.create access"

pytestmark = pytest.mark.usefixtures("local_ray")


class Place:
    """A root in the bucket, behind the proxy; runs on it in this process, and what they did."""

    def __init__(self, folder: Path, root: GcsRoot) -> None:
        self.root, self.log = root, folder / "work.log"
        self.told = Settings(
            root=root.url,
            log=str(self.log),
            run="r",
            out="",
            seconds=0.02,
            pad=PAD,
            storage_options=root.storage_options,
        )

    def at(self, step: str, rows: int, then: Callable[[], None]) -> None:
        """Do something once a step has done so many rows."""

        def watch() -> None:
            wait_until(lambda: self.done()[step] >= rows)
            then()

        threading.Thread(target=watch, daemon=True).start()

    def done(self) -> Counter[str]:
        """How many rows each step has computed."""
        return Counter(work.step for work in read_work(self.log) if work.step in STEPS)

    def stored(self, kind: str) -> Counter[str]:
        """How many objects of a kind there are, ``parts`` or ``outputs``, by the class that they are of."""
        storage = open_storage(self.root.url, self.root.storage_options)
        folders = storage.folders("steps")
        return Counter(
            folder.split("-")[0] for folder in folders for _ in storage.sizes(f"steps/{folder}/{kind}")
        )


@pytest.fixture
def place(tmp_path: Path, far_root: GcsRoot, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.5")
    return Place(tmp_path, far_root)


def writes_part_of(class_name: str) -> Callable[[Request], bool]:
    """Whether a request writes a part of a class's output."""
    return lambda request: (
        request.kind == "write" and f"/{class_name}-" in request.name and "/parts/" in request.name
    )


def check_rows(place: Place, distiset: Distiset) -> None:
    rows = [told_of(row) for row in distiset["default"]["train"].to_list()]
    assert len(rows) == ROWS
    assert not list(wrong_rows(rows, place.told))


@pytest.mark.slow
def test_a_store_that_is_away_for_ten_seconds_is_waited_for(place: Place, faulty_proxy: FaultyProxy) -> None:
    place.at("say", ROWS // 10, lambda: faulty_proxy.be_down(10))
    check_rows(place, declare(place.told).run())
    assert faulty_proxy.faults()["down"]
    assert place.done() == dict.fromkeys(STEPS, ROWS)


@pytest.mark.slow
def test_answers_that_cannot_be_stored_end_the_run(place: Place, faulty_proxy: FaultyProxy) -> None:
    faulty_proxy.refuse(writes_part_of("Answers"), 403, REFUSAL)
    with pytest.raises(DistillRayError, match=f"(?s)say.*{REFUSAL}"):
        declare(place.told).run()
    assert not place.stored("parts")["Answers"]
    assert not {"Answers", "ReadAnswers", "Left", "Right", "Rank"} & set(place.stored("outputs"))
    faulty_proxy.behave()
    check_rows(place, declare(place.told).run())
    # Nothing that was made of those answers is served beside what was made of the new ones.
    assert [place.done()[step] for step in ("count", "square", "group")] == [ROWS, ROWS, ROWS]
    before = place.done()
    check_rows(place, declare(place.told).run())
    assert place.done() == before


def test_a_part_that_cannot_be_stored_ends_the_run_and_the_next_goes_on(
    place: Place, faulty_proxy: FaultyProxy
) -> None:
    start = replace(place.told, steps=STEPS[:2])
    faulty_proxy.refuse(writes_part_of("Square"), 403, REFUSAL)
    with pytest.raises(DistillRayError, match=f"(?s)square.*{REFUSAL}"):
        declare(start).run()
    assert set(place.stored("parts")) == {"Count"}
    assert not place.stored("outputs")["Square"]
    counted = place.done()["count"]
    faulty_proxy.behave()
    rows = declare(start).run()["default"]["train"].to_list()
    assert rows == [{"n": n, "square": n**2} for n in range(ROWS)]
    assert set(place.stored("outputs")) == {"Count", "Square"}
    assert place.done()["count"] == max(counted, ROWS)
