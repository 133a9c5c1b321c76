"""What every model has, a user's own included."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import PrivateAttr

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models import (
    LLM,
    AsyncLLM,
    ChatType,
    GenerateOutput,
    InferenceEndpointsLLM,
    LlamaCppLLM,
    OpenAILLM,
)
from distill_ray.models.outputs import Outcome
from distill_ray.types import UnsignedMark
from tests.models.model_servers import FaultyServer, Reply, chat


def output(text: str) -> GenerateOutput:
    return {
        "generations": [text],
        "statistics": {"input_tokens": [1], "output_tokens": [1]},
        "finish_reasons": ["stop"],
    }


class Upper(LLM):
    @property
    def model_name(self) -> str:
        return "upper"

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1, suffix: str = ""
    ) -> list[GenerateOutput]:
        return [output(chat[-1]["content"].upper() + suffix) for chat in inputs]


class Prefixed(Upper):
    _prefix: str = ""

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._prefix = "set"


class Sleepy(AsyncLLM):
    """Answers after a while, late ones first."""

    @property
    def model_name(self) -> str:
        return "sleepy"

    async def agenerate(  # type: ignore[override]
        self,
        input: ChatType,  # noqa: A002
        num_generations: int = 1,
        seed: int | None = None,
        fail: str | None = None,
    ) -> GenerateOutput:
        text = input[-1]["content"]
        await asyncio.sleep(0.01 / (1 + int(text)))
        if text == fail:
            raise ValueError("no answer")
        return output(f"{text}:{seed}")


class Picky(Upper):
    """Does not answer a batch that holds a question."""

    _batches: list[list[str]] = PrivateAttr(default_factory=list)

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1
    ) -> list[GenerateOutput]:
        texts = [chat[-1]["content"] for chat in inputs]
        self._batches.append(texts)
        if "?" in texts:
            raise ValueError("a question")
        return [output(text) for text in texts]


class AnyArguments(Upper):
    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        return [output(str(sorted(kwargs))) for _ in inputs]


def test_a_users_model_is_a_class_with_a_name_and_generate() -> None:
    llm = Upper(generation_kwargs={"suffix": "!"})
    llm.load()
    assert llm.generate_outputs([chat("a")])[0]["generations"] == ["A!"]
    assert llm.generate_outputs([chat("a")], suffix="?")[0]["generations"] == ["A?"]
    assert llm.signed_state() == {}
    assert llm.version is None
    llm.unload()


def test_private_state_of_a_users_model_travels_with_it() -> None:
    assert pickle.loads(pickle.dumps(Prefixed()))._prefix == "set"
    assert copy.deepcopy(Prefixed())._prefix == "set"


def test_a_misspelled_argument_is_refused_when_declared_assigned_and_used() -> None:
    with pytest.raises(ParameterError, match=r"of Upper has no 'sufix'. Valid names: suffix\."):
        Upper(generation_kwargs={"sufix": "!"})
    llm = Upper()
    with pytest.raises(ParameterError, match="sufix"):
        llm.generation_kwargs = {"sufix": "!"}
    with pytest.raises(ParameterError, match="sufix"):
        Upper().generate_outputs([chat("a")], sufix="!")
    with pytest.raises(ParameterError, match="'suffix' = 3"):
        Upper().generate_outputs([chat("a")], suffix=3)


def test_a_model_that_takes_any_argument_is_given_any() -> None:
    assert AnyArguments(generation_kwargs={"b": 1}).generate_outputs([chat("x")], a=2)[0]["generations"] == [
        "['a', 'b']"
    ]


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ParameterError, match="Upper: there is no parameter 'temperatur'"):
        Upper(temperatur=3)  # type: ignore[call-arg]


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(0, 12),
    generations=st.integers(1, 3),
    concurrency=st.integers(1, 8),
    seed=st.none() | st.integers(0, 99),
)
def test_order_and_samples_are_kept_whatever_the_concurrency(
    rows: int, generations: int, concurrency: int, seed: int | None
) -> None:
    llm = Sleepy(max_concurrency=concurrency)
    outputs = llm.generate_outputs([chat(str(i)) for i in range(rows)], generations, seed=seed)
    llm.unload()
    assert [output["generations"] for output in outputs] == [
        [f"{i}:{None if seed is None else seed + k}" for k in range(generations)] for i in range(rows)
    ]


@pytest.fixture
def terse() -> Iterator[Callable[[Any], AsyncLLM]]:
    made: list[AsyncLLM] = []

    def make(answer: Any) -> AsyncLLM:
        made.append(Terse(answer=answer))
        return made[-1]

    yield make
    for model in made:
        model.unload()  # a model that raised lives on in the traceback, and so would its thread


class Terse(AsyncLLM):
    """Answers with the least that a model may return, or with something else."""

    answer: Any = None

    @property
    def model_name(self) -> str:
        return "terse"

    async def agenerate(self, input: ChatType, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]  # noqa: A002
        return self.answer  # type: ignore[no-any-return]


def test_what_a_model_leaves_out_is_not_recorded(terse: Callable[[Any], AsyncLLM]) -> None:
    chats: list[ChatType] = [[{"role": "user", "content": "hi"}]]
    assert terse({"generations": ["a"]}).generate_outputs(chats, num_generations=2) == [
        {"generations": ["a", "a"]}
    ]
    counted = {"generations": ["a"], "statistics": {"input_tokens": [1], "output_tokens": [2]}}
    assert terse(counted).generate_outputs(chats, num_generations=2) == [
        {"generations": ["a", "a"], "statistics": {"input_tokens": [1, 1], "output_tokens": [2, 2]}}
    ]


@pytest.mark.parametrize("answer", ["text", ["text"], None, {"generation": "text"}, {"generations": "text"}])
def test_a_model_that_returns_something_else_is_told_what_to_return(
    monkeypatch: pytest.MonkeyPatch, terse: Callable[[Any], AsyncLLM], answer: Any
) -> None:
    chats: list[ChatType] = [[{"role": "user", "content": "hi"}]]
    with pytest.raises(ModelError, match=r"`agenerate` of Terse must return \{'generations': \[text"):
        terse(answer).generate_outputs(chats, num_generations=2)
    for returned in (answer, [answer]):
        monkeypatch.setattr(Upper, "generate", lambda *_, it=returned, **__: it)
        with pytest.raises(ModelError, match="of Upper must return"):
            Upper().generate_outputs(chats)


def test_the_first_failure_ends_the_batch_and_names_its_input() -> None:
    llm = Sleepy()
    with pytest.raises(ModelError, match=r"Sleepy 'sleepy', input 3 of 5: no answer") as error:
        llm.generate_outputs([chat(str(i)) for i in range(5)], fail="3")
    assert isinstance(error.value.__cause__, ValueError)
    assert llm.generate_outputs([chat("1")])[0]["generations"] == ["1:None"]
    llm.unload()


def texts_of(outcomes: list[list[Outcome]]) -> list[list[Any]]:
    """What was generated; in place of the rest what it failed with, or None."""
    return [
        [each["generations"] if isinstance(each, dict) else each and str(each) for each in made]
        for made in outcomes
    ]


def test_of_each_conversation_it_is_told_what_became_of_it() -> None:
    llm = Sleepy()
    outcomes = llm.generate_each([chat(str(i)) for i in range(4)], stop_at_failure=False, fail="2")
    failure = "Sleepy 'sleepy', input 2 of 4: no answer"
    assert texts_of(outcomes) == [[["0:None"]], [["1:None"]], [failure], [["3:None"]]]
    (error,) = outcomes[2]
    assert isinstance(error, ModelError)
    assert isinstance(error.__cause__, ValueError)
    llm.unload()


def test_of_each_generation_too_where_each_is_a_request_of_its_own() -> None:
    class Unlucky(Sleepy):
        async def agenerate(  # type: ignore[override]
            self,
            input: ChatType,  # noqa: A002
            num_generations: int = 1,
            seed: int | None = None,
        ) -> GenerateOutput:
            return await super().agenerate(input, seed=seed, fail="1" if seed == 7 else None)

    llm = Unlucky()
    outcomes = llm.generate_each([chat("0"), chat("1")], 3, stop_at_failure=False, seed=6)
    failure = "Unlucky 'sleepy', input 1 of 2: no answer"
    assert texts_of(outcomes) == [[["0:6"], ["0:7"], ["0:8"]], [["1:6"], failure, ["1:8"]]]
    llm.unload()


def test_after_a_failure_what_was_sent_is_waited_for_and_nothing_more_is_sent_where_it_is_to_stop() -> None:
    llm = Sleepy(max_concurrency=2)
    outcomes = llm.generate_each([chat(text) for text in "0912"], stop_at_failure=True, fail="9")
    failure = "Sleepy 'sleepy', input 1 of 4: no answer"
    assert texts_of(outcomes) == [[["0:None"]], [failure], [None], [None]]
    llm.unload()


def test_where_a_batch_fails_as_a_whole_all_have_failed_or_each_is_asked_by_itself() -> None:
    chats = [chat(text) for text in "a?b"]
    llm = Picky()
    assert texts_of(llm.generate_each(chats, stop_at_failure=True)) == [["a question"]] * 3
    assert llm._batches == [["a", "?", "b"]]
    assert texts_of(llm.generate_each(chats, stop_at_failure=False)) == [[["a"]], ["a question"], [["b"]]]
    assert llm._batches[1:] == [["a", "?", "b"], ["a"], ["?"], ["b"]]


def test_a_model_that_gives_too_few_outputs_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Upper, "generate", lambda *_, **__: [output("A")])
    with pytest.raises(ModelError, match=r"Upper gave 1 outputs for 2 inputs\."):
        Upper().generate_outputs([chat("a"), chat("b")])


def test_an_asynchronous_model_with_a_generate_of_its_own_is_asked_through_it() -> None:
    class Bulk(Sleepy):
        def generate(
            self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
        ) -> list[GenerateOutput]:
            return [output("in bulk") for _ in inputs]

    assert texts_of(Bulk().generate_each([chat("1")], stop_at_failure=True)) == [[["in bulk"]]]


def test_unloading_ends_the_thread_and_so_does_forgetting_the_model() -> None:
    def threads() -> int:
        return sum(thread.name == "distill-ray-models" for thread in threading.enumerate())

    before = threads()
    llm = Sleepy()
    llm.generate_outputs([chat("1")])
    assert threads() == before + 1
    llm.unload()
    assert threads() == before
    llm.generate_outputs([chat("1")])
    del llm
    assert threads() == before


@pytest.mark.parametrize(
    ("kind", "unsigned"),
    [
        (LlamaCppLLM, {"model", "revision", "n_parallel", "n_threads", "n_gpu_layers", "verbose"}),
        (OpenAILLM, {"api_key", "default_headers", "max_concurrency", "max_retries", "timeout"}),
        (InferenceEndpointsLLM, {"api_key", "max_concurrency", "max_retries", "timeout"}),
    ],
)
def test_what_changes_only_how_a_model_is_run_is_unsigned(kind: type[LLM], unsigned: set[str]) -> None:
    marked = {
        name
        for name, field in kind.model_fields.items()
        if any(isinstance(mark, UnsignedMark) for mark in field.metadata)
    }
    assert marked == unsigned | {"exclude_from_signature"}
    assert kind.version == "1"


def test_keys_come_from_the_environment_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-env")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("HF_TOKEN", "hf-from-env")
    llm = OpenAILLM(model="m")
    assert llm.api_key is not None
    assert llm.api_key.get_secret_value() == "sk-from-env"
    assert llm.base_url == "http://127.0.0.1:1/v1"
    endpoint = InferenceEndpointsLLM(model_id="m")
    assert endpoint.api_key is not None
    assert "hf-from-env" not in f"{endpoint!r}{endpoint.model_dump_json()}"
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        OpenAILLM(model="m").load()


def test_a_declaration_survives_being_saved_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-env")
    llm = OpenAILLM(model="m", generation_kwargs={"seed": 1}, default_headers={"X-Key": "hush"})
    assert "hush" not in f"{llm!r}{llm.model_dump_json()}"
    again = OpenAILLM.model_validate_json(llm.model_dump_json())
    assert again.model_dump() == llm.model_dump()
    assert again.api_key == llm.api_key


@pytest.mark.parametrize(
    "fields", [{}, {"model_id": "a", "base_url": "http://b"}, {"endpoint_namespace": "c"}]
)
def test_an_endpoint_is_named_in_exactly_one_way(fields: dict[str, str]) -> None:
    with pytest.raises(ParameterError, match="exactly one of model_id, endpoint_name and base_url"):
        InferenceEndpointsLLM(**fields)


def test_an_endpoint_is_called_by_its_display_name() -> None:
    assert InferenceEndpointsLLM(model_id="org/m").model_name == "org/m"
    assert InferenceEndpointsLLM(endpoint_name="e", model_display_name="Mine").model_name == "Mine"


def test_a_format_that_is_no_json_schema_is_refused() -> None:
    with pytest.raises(ParameterError, match="'regex' is not supported"):
        OpenAILLM(model="m", structured_output={"format": "regex", "schema": "a+"})


def test_a_server_that_refuses_or_ignores_several_choices_is_asked_for_one_each(
    faulty_server: FaultyServer,
) -> None:
    llm = OpenAILLM(model="m", base_url=faulty_server.url)
    llm.load()
    assert len(llm.generate_outputs([chat("a")], 3)[0]["generations"]) == 3
    assert [request.get("n") for request in faulty_server.requests] == [3]
    faulty_server.requests.clear()
    faulty_server.choices = lambda _: 1
    assert len(llm.generate_outputs([chat("a")], 3)[0]["generations"]) == 3
    assert [request.get("n") for request in faulty_server.requests] == [3, 2, None]
    faulty_server.requests.clear()
    faulty_server.replies = [Reply(400, {"error": {"message": "only n = 1"}})]
    assert len(llm.generate_outputs([chat("a")], 3)[0]["generations"]) == 3
    assert [request.get("n") for request in faulty_server.requests] == [3, None, None, None]
    llm.unload()
