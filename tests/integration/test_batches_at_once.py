"""A replica is given several batches at once: a slow row holds up nobody, nothing is lost or made twice.

What happens when is decided by the steps themselves: they wait for each other, not for the time to pass.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import PrivateAttr

from distill_ray.distiset import Distiset
from distill_ray.errors import StepError
from distill_ray.models import AsyncLLM, ChatType, GenerateOutput
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts, Step, StepInput, StepResources
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import Unsigned
from distill_ray.typing import StepOutput

pytestmark = pytest.mark.usefixtures("local_ray")

PATIENCE = 120
"""Seconds after which it is clear that what a step waits for does not come."""


def rows_of(distiset: Distiset) -> list[dict[str, Any]]:
    return distiset["default"]["train"].to_list()


def note(log: str, what: object) -> None:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def noted(log: Path) -> Counter[str]:
    return Counter(log.read_text(encoding="utf-8").split()) if log.exists() else Counter()


class Noting(AsyncLLM):
    """Notes each request; answers the row ``slow`` only after all others have been asked.

    The first time that it is asked about the row ``deadly`` its process ends.
    """

    version = "1"
    exclude_from_signature: frozenset[str] = frozenset({"log", "slow", "others", "deadly"})

    log: str
    slow: str = ""
    others: frozenset[str] = frozenset()
    deadly: str = ""

    _under_way: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return "noting"

    async def agenerate(self, input: ChatType, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]  # noqa: A002
        text = input[-1]["content"]
        self._under_way += 1
        assert self._under_way <= self.max_concurrency, "the batches share the slots"
        note(self.log, text)
        if text == self.deadly and noted(Path(self.log))[text] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while text == self.slow and not self.others <= set(noted(Path(self.log))):
            assert time.monotonic() < deadline, "the slow row keeps others from being asked"
            await asyncio.sleep(0.02)
        self._under_way -= 1
        return {"generations": [f"re {text}"], "finish_reasons": ["stop"]}


def ask(log: Path, texts: list[str], engine: Engine = "ray", *, replicas: int = 1, **fields: Any) -> Distiset:
    llm = Noting(log=str(log), max_concurrency=3, **fields)
    with Pipeline(name="asks") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": text} for text in texts])
        resources = StepResources(replicas=replicas, cpus=0.5)
        load >> TextGeneration(name="t", llm=llm, input_batch_size=4, resources=resources)
    return pipeline.run(engine=engine)


def test_a_slow_row_does_not_keep_those_of_later_batches_from_being_asked(tmp_path: Path) -> None:
    texts = [f"t{number:02d}" for number in range(22)]
    others = frozenset(texts) - {"t01"}
    made = ask(tmp_path / "first", texts, slow="t01", others=others)
    assert noted(tmp_path / "first") == Counter(texts)
    again = ask(tmp_path / "second", texts, replicas=2)
    assert again.report.steps["t"].decision == "hit"
    assert not noted(tmp_path / "second")
    assert rows_of(again) == rows_of(made)


def test_a_replica_that_dies_over_several_batches_costs_none_of_them(tmp_path: Path) -> None:
    texts = [f"t{number:02d}" for number in range(22)]
    made = ask(tmp_path / "first", texts, deadly="t09")
    assert [row["generation"] for row in rows_of(made)] == [f"re {text}" for text in texts]
    assert noted(tmp_path / "first")["t09"] == 2
    ask(tmp_path / "second", texts)
    assert not noted(tmp_path / "second")


def test_it_gives_what_one_batch_after_the_other_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"t{number % 17:02d}" for number in range(50)]
    made = ask(tmp_path / "ray", texts, replicas=2)
    monkeypatch.setenv("DISTILL_RAY_CACHE_DIR", str(tmp_path / "other cache"))
    assert rows_of(made) == rows_of(ask(tmp_path / "inline", texts, "inline"))
    assert noted(tmp_path / "ray") == noted(tmp_path / "inline") == Counter(texts)


def parts_in(root: Path) -> Iterator[Path]:
    return root.glob("steps/Together-*/parts/*.parquet")


class Together(Step):
    """Gives batches back only when as many are at work as it may be given at once.

    Attributes:
        log: where it notes the first row of each batch that it is given.
        fails: the row whose batch fails, then.
        waits_for: the row whose batch waits for a part instead; the others wait for nothing.
        root: the cache root.
    """

    version = "1"
    exclude_from_signature: frozenset[str] = frozenset({"log", "fails", "waits_for", "root"})

    log: str
    at_once: Unsigned[int] = 4
    fails: int = -1
    waits_for: int = -1
    root: str = ""

    _barrier: threading.Barrier | None = PrivateAttr(default=None)

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["twice"]

    @property
    def batches_at_once(self) -> int:
        return self.at_once

    def load(self) -> None:
        super().load()
        self._barrier = threading.Barrier(self.at_once)

    def process(self, inputs: StepInput) -> StepOutput:
        first = inputs[0]["n"]
        note(self.log, first)
        if first == self.waits_for:
            self._wait_for(lambda: any(parts_in(Path(self.root))))
        elif self.waits_for < 0:
            assert self._barrier is not None
            self._barrier.wait(PATIENCE)
        if first == self.fails:
            raise ValueError("this one not")
        yield [{**row, "twice": 2 * row["n"]} for row in inputs]

    def _wait_for(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not there():
            assert time.monotonic() < deadline, "nothing is written while a batch is at work"
            time.sleep(0.02)


def double(log: Path, rows: int = 40, **fields: Any) -> Distiset:
    with Pipeline(name="doubles") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(rows)])
        load >> Together(name="t", log=str(log), input_batch_size=5, **fields)
    return pipeline.run(engine="ray")


def stored_rows(root: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in parts_in(root))


def test_batches_that_end_together_are_each_stored_once(tmp_path: Path, cache_root: Path) -> None:
    made = double(tmp_path / "first")
    assert rows_of(made) == [{"n": n, "twice": 2 * n} for n in range(40)]
    assert stored_rows(cache_root) == 40
    again = double(tmp_path / "second")
    assert again.report.steps["t"].decision == "hit"
    assert not noted(tmp_path / "second")


def test_of_batches_at_work_together_one_that_fails_is_named_and_the_others_are_stored(
    tmp_path: Path,
) -> None:
    with pytest.raises(StepError, match=r"Step 't', input rows 5 to 9: .*ValueError: this one not"):
        double(tmp_path / "first", rows=20, fails=5)
    assert noted(tmp_path / "first") == Counter(["0", "5", "10", "15"])
    double(tmp_path / "second", rows=20, at_once=1)
    assert noted(tmp_path / "second") == Counter(["5"])


def test_what_is_made_is_written_in_time_while_other_batches_are_at_work(
    tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.2")
    made = double(tmp_path / "log", waits_for=10, root=str(cache_root))
    assert rows_of(made) == [{"n": n, "twice": 2 * n} for n in range(40)]
    assert stored_rows(cache_root) == 40
