"""One request that fails costs one row: the answers that came with it are paid for once.

The model here writes each request that it is sent to a file, so that the tests count real requests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_ray.distiset import Distiset
from distill_ray.errors import StepError
from distill_ray.models import AsyncLLM, ChatType, GenerateOutput
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts
from distill_ray.steps.tasks import TextGeneration

TEXTS = [f"t{number:02d}" for number in range(40)]


class Flaky(AsyncLLM):
    """Answers with the request and its seed, but not to the requests (or ``request:seed``) in ``fails``."""

    version = "1"
    exclude_from_signature: frozenset[str] = frozenset({"log", "fails"})

    log: str
    fails: frozenset[str] = frozenset()

    @property
    def model_name(self) -> str:
        return "flaky"

    async def agenerate(  # type: ignore[override]
        self,
        input: ChatType,  # noqa: A002 - distilabel's name
        num_generations: int = 1,
        seed: int | None = None,
    ) -> GenerateOutput:
        text = input[-1]["content"]
        said = text if seed is None else f"{text}:{seed}"
        self._note(said)
        if said in self.fails:
            raise ConnectionError(f"no answer to {said}")
        await asyncio.sleep(0.02)
        return {
            "generations": [f"re {said}"],
            "statistics": {"input_tokens": [1], "output_tokens": [1]},
            "finish_reasons": ["stop"],
        }

    def _note(self, said: str) -> None:
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.write(f"{said}\n")


class Lab:
    """Runs a task on `TEXTS`, and counts the requests that the model was sent."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.log = folder / "requests.log"

    def run(
        self, *fails: str, seed: int | None = None, concurrency: int = 8, **settings: Any
    ) -> tuple[Distiset, Counter[str]]:
        kwargs = {} if seed is None else {"seed": seed}
        log = str(self.log)
        llm = Flaky(log=log, fails=frozenset(fails), max_concurrency=concurrency, generation_kwargs=kwargs)
        self.log.write_text("", encoding="utf-8")
        with Pipeline(name="lab") as pipeline:
            load = LoadDataFromDicts(name="load", data=[{"instruction": text} for text in TEXTS])
            load >> TextGeneration(name="t", llm=llm, input_batch_size=20, **settings)
        return pipeline.run(engine=self.engine), self.asked()

    def asked(self) -> Counter[str]:
        return Counter(self.log.read_text(encoding="utf-8").split())


@pytest.fixture
def lab(engine: Engine, tmp_path: Path) -> Lab:
    return Lab(engine, tmp_path)


def answers(distiset: Distiset) -> list[str | None]:
    return [row["generation"] for row in distiset["default"]["train"].to_list()]


def test_where_a_request_ends_the_run_the_answers_that_came_with_it_are_found_by_the_next(lab: Lab) -> None:
    with pytest.raises(StepError, match=r"Step 't/answer', input row 25: .*no answer to t25"):
        lab.run("t25")
    asked = lab.asked()
    assert max(asked.values()) == 1
    assert set(asked) >= set(TEXTS[:26])
    assert len(asked) < len(TEXTS), "what was not yet sent when it failed was not sent any more"
    made, then = lab.run()
    assert set(then) == {"t25", *TEXTS} - (set(asked) - {"t25"})
    assert max(then.values()) == 1
    assert answers(made) == [f"re {text}" for text in TEXTS]


@pytest.mark.parametrize("on_error", ["skip", "null"])
def test_where_the_run_goes_on_each_request_is_sent_once_and_the_next_run_sends_what_failed(
    lab: Lab, on_error: str
) -> None:
    made, asked = lab.run("t03", "t25", on_error=on_error)
    assert asked == Counter(TEXTS)
    failed = {"t03", "t25"}
    expected = [None if text in failed else f"re {text}" for text in TEXTS]
    assert answers(made) == [each for each in expected if each is not None or on_error == "null"]
    report = made.report.steps["t/answer"]
    assert report.rows_failed == 2
    told = [
        f"input row {row}: Flaky 'flaky', input {n} of 20: no answer to t{row:02d}"
        for row, n in ((3, 3), (25, 5))
    ]
    assert sorted(report.failures) == sorted(told)
    mended, asked = lab.run(on_error=on_error)
    assert asked == Counter(failed)
    assert answers(mended) == [f"re {text}" for text in TEXTS]
    assert mended.report.steps["t/answer"].rows_failed == 0


def test_of_several_samples_of_a_request_only_the_one_that_failed_is_asked_for_again(lab: Lab) -> None:
    everything = Counter(f"{text}:{seed}" for text in TEXTS for seed in (5, 6, 7))
    _, asked = lab.run("t30:6", seed=5, num_generations=3, on_error="null")
    assert asked == everything
    mended, asked = lab.run(seed=5, num_generations=3, on_error="null")
    assert asked == Counter(["t30:6"])
    assert answers(mended) == [f"re {text}:{seed}" for text in TEXTS for seed in (5, 6, 7)]
