"""Batches that several threads give to one model share its slots."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import PrivateAttr

from distill_ray.models import LLM, AsyncLLM, ChatType, GenerateOutput, OpenAILLM
from distill_ray.models.saturation import batches_to_saturate
from distill_ray.steps.tasks import TextGeneration
from distill_ray.steps.tasks.parts import parts_of
from tests.models.model_servers import chat


class Watched(AsyncLLM):
    """Answers nothing before ``tasks`` tasks are in the loop; sees who was asked when."""

    tasks: int = 0

    _asked: list[str] = PrivateAttr(default_factory=list)
    _under_way: int = PrivateAttr(default=0)
    _most: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return "watched"

    async def agenerate(self, input: ChatType, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]  # noqa: A002
        text = input[-1]["content"]
        self._asked.append(text)
        self._under_way += 1
        self._most = max(self._most, self._under_way)
        while len(asyncio.all_tasks()) < self.tasks:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
        self.tasks = 0
        await asyncio.sleep(0.001)
        self._under_way -= 1
        return {"generations": [text]}


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def texts(outputs: list[GenerateOutput]) -> list[str | None]:
    return [output["generations"][0] for output in outputs]


def test_no_more_requests_are_under_way_than_the_model_has_slots(threads: ThreadPoolExecutor) -> None:
    llm = Watched(max_concurrency=5)
    batches = [[f"{batch}-{row}" for row in range(4)] for batch in range(8)]
    answers = list(threads.map(lambda batch: llm.generate_outputs([chat(each) for each in batch]), batches))
    assert [texts(each) for each in answers] == batches
    assert llm._most == 5
    llm.unload()


def test_slots_are_given_away_in_the_order_in_which_the_batches_come(threads: ThreadPoolExecutor) -> None:
    llm = Watched(max_concurrency=1, tasks=3 + 1 + 3 + 1)  # the rows and the batches themselves
    first = threads.submit(llm.generate_outputs, [chat(each) for each in "abc"])
    while not llm._asked:
        assert not first.done()
    second = threads.submit(llm.generate_each, [chat(each) for each in "def"], stop_at_failure=True)
    assert texts(first.result()) == list("abc")
    assert second.result()
    assert llm._asked == list("abcdef")
    llm.unload()


def test_a_copy_of_a_model_that_is_at_work_has_slots_of_its_own() -> None:
    llm = Watched(max_concurrency=2)
    llm.generate_outputs([chat("a")])
    for other in (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):
        assert other._event_loop is None
        assert texts(other.generate_outputs([chat("b")])) == ["b"]
        other.unload()
    llm.unload()


class Blocking(LLM):
    @property
    def model_name(self) -> str:
        return "blocking"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        return [{"generations": ["yes"] * num_generations} for _ in inputs]


class Bulk(Watched):
    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        return [{"generations": ["yes"] * num_generations} for _ in inputs]


def at_once(llm: LLM, samples: int = 1) -> list[int]:
    """How many batches each of the steps is given at once that a task is made of."""
    task = TextGeneration(llm=llm, input_batch_size=50, num_generations=samples)
    return [part.batches_at_once for part in parts_of(task, "t", first_sample=0)]


def test_a_task_asks_its_model_for_so_many_batches_that_its_slots_are_busy() -> None:
    many = batches_to_saturate(32, 50)
    assert many > 1
    assert at_once(Watched(max_concurrency=32)) == [1, many, 1]
    assert at_once(Watched(max_concurrency=32), samples=4) == [1, batches_to_saturate(32, 200), 1]


def test_samples_that_are_asked_for_in_one_request_count_once() -> None:
    openai = OpenAILLM(model="m", base_url="http://localhost:1/v1", max_concurrency=32)
    assert at_once(openai, samples=4) == [1, batches_to_saturate(32, 50), 1]
    seeded = openai.model_copy(update={"generation_kwargs": {"seed": 1}})
    assert at_once(seeded, samples=4) == [1, batches_to_saturate(32, 200), 1]


def test_a_model_that_answers_batch_by_batch_is_given_one_at_a_time() -> None:
    assert at_once(Blocking()) == [1, 1, 1]
    assert at_once(Bulk(max_concurrency=32)) == [1, 1, 1]
