"""What the models behind a server have in common, against a server that fails as servers do."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models import AsyncLLM
from distill_ray.steps.signing import step_function
from distill_ray.steps.tasks.answers import Answers
from tests.models.model_servers import FaultyServer, Reply, chat

Client = Callable[..., AsyncLLM]


def test_a_rate_limit_is_waited_out_for_as_long_as_the_server_says(
    client: Client, faulty_server: FaultyServer
) -> None:
    faulty_server.replies = [Reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"})]
    llm = client(faulty_server.url)
    [output] = llm.generate_outputs([chat("a")])
    assert output["generations"] == ["echo a None"]
    assert len(faulty_server.times) == 2
    assert 0.95 <= faulty_server.times[1] - faulty_server.times[0] < 3


def test_server_errors_are_tried_again_with_growing_waits(
    client: Client, faulty_server: FaultyServer
) -> None:
    faulty_server.replies = [Reply(500, {}), Reply(503, "unavailable")]
    llm = client(faulty_server.url)
    assert llm.generate_outputs([chat("a")])[0]["generations"] == ["echo a None"]
    first, second, third = faulty_server.times
    assert third - second > second - first > 0.3


def test_a_server_that_keeps_failing_is_an_error_that_names_the_input(
    client: Client, faulty_server: FaultyServer
) -> None:
    faulty_server.always = Reply(500, {"error": {"message": "boom"}}, {"Retry-After": "0.01"})
    llm = client(faulty_server.url, max_retries=1)
    with pytest.raises(ModelError, match=r"input 0 of 1: .*answered 500 after 1 retries"):
        llm.generate_outputs([chat("a")])
    assert len(faulty_server.times) == 2


def test_a_request_that_the_server_refuses_is_not_tried_again_and_its_message_is_shown(
    client: Client, faulty_server: FaultyServer
) -> None:
    faulty_server.always = Reply(400, {"error": {"message": "temperature must be below 9", "code": 400}})
    llm = client(faulty_server.url)
    with pytest.raises(ModelError, match=r"(?s)input 0 of 1: .*400.*temperature must be below 9"):
        llm.generate_outputs([chat("a")])
    assert len(faulty_server.times) == 1


def test_a_request_without_an_answer_times_out_and_is_tried_again(
    client: Client, faulty_server: FaultyServer
) -> None:
    faulty_server.replies = [Reply(delay=5)]
    llm = client(faulty_server.url, timeout=0.3)
    assert llm.generate_outputs([chat("a")])[0]["generations"] == ["echo a None"]
    faulty_server.always = Reply(delay=5)
    slow = client(faulty_server.url, timeout=0.2, max_retries=0)
    with pytest.raises(ModelError, match="input 0 of 1"):
        slow.generate_outputs([chat("a")])


def test_a_server_that_is_not_there_is_an_error_that_names_its_address(client: Client) -> None:
    llm = client("http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(ModelError, match=r"input 0 of 1: http://127.0.0.1:9/v1"):
        llm.generate_outputs([chat("a")])


@pytest.mark.parametrize("body", ["this is no JSON", {"error": "no choices"}, {"choices": []}, "null", "[1]"])
def test_an_answer_that_is_no_completion_is_an_error(
    client: Client, faulty_server: FaultyServer, body: Any
) -> None:
    faulty_server.always = Reply(200, body)
    llm = client(faulty_server.url, max_retries=0)
    with pytest.raises(ModelError, match="input 0 of 1"):
        llm.generate_outputs([chat("a")])


def test_the_input_that_failed_is_named(client: Client, faulty_server: FaultyServer) -> None:
    faulty_server.replies = [Reply(), Reply(), Reply(400, {"error": {"message": "too long"}})]
    llm = client(faulty_server.url, max_concurrency=1)
    with pytest.raises(ModelError, match="input 2 of 5"):
        llm.generate_outputs([chat(str(i)) for i in range(5)])
    assert len(faulty_server.requests) < 5


def test_concurrency_is_bounded_and_order_is_kept(client: Client, faulty_server: FaultyServer) -> None:
    faulty_server.delay = 0.05
    faulty_server.replies = [Reply(delay=0.3)]
    llm = client(faulty_server.url, max_concurrency=4)
    outputs = llm.generate_outputs([chat(str(i)) for i in range(20)])
    assert [output["generations"] for output in outputs] == [[f"echo {i} None"] for i in range(20)]
    assert faulty_server.most_running == 4


def test_generations_count_as_requests_of_their_own_in_the_bound(
    client: Client, faulty_server: FaultyServer
) -> None:
    faulty_server.delay = 0.05
    llm = client(faulty_server.url, max_concurrency=3)
    outputs = llm.generate_outputs([chat("a"), chat("b")], num_generations=5, seed=7)
    assert outputs[1]["generations"] == [f"echo b {seed}" for seed in range(7, 12)]
    assert faulty_server.most_running == 3


def test_several_generations_have_a_token_count_and_a_finish_reason_each(
    client: Client, faulty_server: FaultyServer
) -> None:
    llm = client(faulty_server.url)
    [output] = llm.generate_outputs([chat("a")], num_generations=3)
    assert output["generations"] == ["echo a None"] * 3
    assert output["finish_reasons"] == ["stop"] * 3
    assert len(output["statistics"]["input_tokens"]) == len(output["statistics"]["output_tokens"]) == 3
    assert sum(output["statistics"]["output_tokens"]) == 5 * len(faulty_server.requests)


def test_answers_that_a_server_counts_together_may_each_have_had_all_the_tokens(
    client: Client, faulty_server: FaultyServer
) -> None:
    [output] = client(faulty_server.url).generate_outputs([chat("a")], num_generations=3)
    one_request = len(faulty_server.requests) == 1
    assert output.get("most_tokens") == ([5, 5, 5] if one_request else None)
    assert sum(output["statistics"]["output_tokens"]) == (5 if one_request else 15)


def test_a_salt_changes_the_signature_and_nothing_else(client: Client, faulty_server: FaultyServer) -> None:
    plain, salted = client(faulty_server.url), client(faulty_server.url, salt="after the update of May")
    signatures = {step_function(Answers.of(llm)).signature for llm in (plain, salted)}
    assert len(signatures) == 2
    assert salted.generate_outputs([chat("a")]) == plain.generate_outputs([chat("a")])
    first, second = ({**request, "headers": None} for request in faulty_server.requests)
    assert first == second


def test_it_generates_where_a_loop_runs_already(client: Client, faulty_server: FaultyServer) -> None:
    llm = client(faulty_server.url)

    async def in_a_notebook() -> Any:
        return llm.generate_outputs([chat("a")])

    assert asyncio.run(in_a_notebook())[0]["generations"] == ["echo a None"]


def test_arguments_of_a_call_change_those_of_the_model(client: Client, faulty_server: FaultyServer) -> None:
    llm = client(faulty_server.url, generation_kwargs={"max_new_tokens": 7, "temperature": 0.5})
    llm.generate_outputs([chat("a")], temperature=0.25)
    assert faulty_server.requests[0]["max_tokens"] == 7
    assert faulty_server.requests[0]["temperature"] == 0.25


def test_a_misspelled_argument_lists_the_valid_ones(client: Client, faulty_server: FaultyServer) -> None:
    with pytest.raises(ParameterError, match=r"no 'max_tokens'.*max_new_tokens.*temperature"):
        client(faulty_server.url, generation_kwargs={"max_tokens": 7})
    with pytest.raises(ParameterError, match=r"'temperature' = 'hot'"):
        client(faulty_server.url).generate_outputs([chat("a")], temperature="hot")


def test_a_schema_is_asked_for_as_response_format(client: Client, faulty_server: FaultyServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    llm = client(faulty_server.url, structured_output={"format": "json", "schema": schema})
    llm.generate_outputs([chat("a")])
    asked = faulty_server.requests[0]["response_format"]
    assert schema in (asked.get("json_schema", {}).get("schema"), asked.get("value"))
    with pytest.raises(ModelError, match="not both"):
        llm.generate_outputs([chat("a")], response_format={"type": "json_object"})


def test_the_key_is_sent_and_never_shown(client: Client, faulty_server: FaultyServer) -> None:
    llm = client(faulty_server.url)
    llm.generate_outputs([chat("a")])
    assert faulty_server.requests[0]["headers"]["Authorization"] == "Bearer sk-secret"
    shown = f"{llm!r} {llm} {llm.model_dump()} {llm.model_dump_json()}"
    assert "sk-secret" not in shown
    assert "**" not in llm.model_dump_json()


def test_an_address_must_not_hold_credentials(client: Client) -> None:
    with pytest.raises(ParameterError, match="credentials") as error:
        client("http://me:hunter2@127.0.0.1/v1")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("address", ["localhost:8000/v1", "http:///v1", "user:sk-secret@host/v1"])
def test_an_address_that_is_none_is_refused_before_anything_is_asked(client: Client, address: str) -> None:
    with pytest.raises(ParameterError, match="base_url is no server's address") as error:
        client(address)
    assert "sk-secret" not in str(error.value)


def test_it_can_be_sent_to_another_process_while_loaded(client: Client, faulty_server: FaultyServer) -> None:
    from ray import cloudpickle

    llm = client(faulty_server.url)
    llm.generate_outputs([chat("a")])
    there = cloudpickle.loads(cloudpickle.dumps(llm))
    there.load()
    assert there.generate_outputs([chat("b")])[0]["generations"] == ["echo b None"]
    there.unload()


def test_a_copy_of_a_loaded_model_is_not_loaded(client: Client, faulty_server: FaultyServer) -> None:
    llm = client(faulty_server.url)
    llm.generate_outputs([chat("a")])
    twin = copy.deepcopy(llm)
    assert twin.model_dump() == llm.model_dump()
    with pytest.raises(ModelError, match="not loaded"):
        twin.generate_outputs([chat("a")])
    twin.unload()


def test_it_says_that_it_was_not_loaded(client: Client, faulty_server: FaultyServer) -> None:
    llm = client(faulty_server.url)
    llm.unload()
    with pytest.raises(ModelError, match="not loaded"):
        llm.generate_outputs([chat("a")])
    llm.unload()


@pytest.mark.model
def test_it_talks_to_a_real_server(client: Client, model_server: str) -> None:
    llm = client(model_server, generation_kwargs={"max_new_tokens": 24, "temperature": 0.0, "seed": 1})
    outputs = llm.generate_outputs([chat("How much is 2+2?"), chat("What is the capital of France?")])
    assert "4" in (outputs[0]["generations"][0] or "")
    assert outputs[1]["generations"][0]
    assert outputs[0]["statistics"]["input_tokens"][0] > 30
    assert set(outputs[0]["finish_reasons"]) <= {"stop", "length"}


@pytest.mark.model
def test_a_real_server_repeats_itself_for_a_seed_and_varies_over_samples(
    client: Client, model_server: str
) -> None:
    kwargs = {"max_new_tokens": 16, "temperature": 1.0, "seed": 5}
    llm = client(model_server, generation_kwargs=kwargs)
    first, second = (llm.generate_outputs([chat("Name an animal.")], num_generations=3) for _ in range(2))
    assert first[0]["generations"] == second[0]["generations"]
    assert len(set(first[0]["generations"])) > 1


@pytest.mark.model
def test_a_real_server_gives_several_unseeded_answers_and_log_probabilities(
    client: Client, model_server: str
) -> None:
    llm = client(model_server, generation_kwargs={"max_new_tokens": 4, "logprobs": True, "top_logprobs": 2})
    [output] = llm.generate_outputs([chat("Name an animal.")], num_generations=3)
    assert len(output["generations"]) == len(output["logprobs"]) == 3
    assert len(output["logprobs"][0][0]) == 2
    assert output["logprobs"][0][0][0]["logprob"] <= 0


@pytest.mark.model
def test_a_real_server_says_that_the_context_is_full(client: Client, model_server: str) -> None:
    with pytest.raises(ModelError, match=r"(?s)input 1 of 2: .*context size"):
        client(model_server).generate_outputs([chat("a"), chat("hello " * 3000)], max_new_tokens=4)


@pytest.mark.model
def test_a_real_server_follows_a_schema(client: Client, model_server: str) -> None:
    import json

    schema = {
        "type": "object",
        "properties": {"sum": {"type": "integer"}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    llm = client(model_server, structured_output=schema, generation_kwargs={"max_new_tokens": 64, "seed": 1})
    answer = llm.generate_outputs([chat("How much is 2+2? Answer in JSON.")])[0]["generations"][0]
    assert set(json.loads(answer or "")) == {"sum"}
