"""The model that llama.cpp runs in this process."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models import LlamaCppLLM
from distill_ray.models.local_model import NAMED_MODELS
from distill_ray.steps.signing import step_function
from distill_ray.steps.tasks.answers import Answers
from tests.models.model_servers import chat

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def llm(weights: Path) -> Iterator[LlamaCppLLM]:
    llm = LlamaCppLLM(model=str(weights), n_ctx=256, n_parallel=3)
    llm.load()
    yield llm
    llm.unload()


def test_it_answers_each_conversation_in_order(llm: LlamaCppLLM) -> None:
    questions = [chat(f"Repeat the word {word}.") for word in ("apple", "banana", "cherry", "date")]
    together = llm.generate_outputs(questions, temperature=0.0, max_new_tokens=12)
    alone = [
        llm.generate_outputs([question], temperature=0.0, max_new_tokens=12)[0] for question in questions
    ]
    assert together == alone
    assert len({output["generations"][0] for output in together}) > 1


def test_an_answer_says_how_it_ended_and_what_it_cost(llm: LlamaCppLLM) -> None:
    [cut] = llm.generate_outputs([chat("Tell me a long story.")], max_new_tokens=5, seed=1)
    assert cut["finish_reasons"] == ["length"]
    assert cut["statistics"]["output_tokens"] == [5]
    assert cut["statistics"]["input_tokens"][0] > 30
    [ended] = llm.generate_outputs([chat("Say hi.")], max_new_tokens=100, temperature=0.0)
    assert ended["finish_reasons"] == ["stop"]
    assert 0 < ended["statistics"]["output_tokens"][0] < 100


def test_a_seed_repeats_the_answers_and_each_sample_has_its_own(llm: LlamaCppLLM) -> None:
    first, second = (
        llm.generate_outputs([chat("Name an animal.")], 3, seed=9, max_new_tokens=12) for _ in "ab"
    )
    assert first == second
    assert len(set(first[0]["generations"])) == 3
    [third] = llm.generate_outputs([chat("Name an animal.")], 1, seed=11, max_new_tokens=12)
    assert third["generations"][0] == first[0]["generations"][2]


def test_without_a_seed_the_answers_vary(llm: LlamaCppLLM) -> None:
    [output] = llm.generate_outputs([chat("Tell me a story.")], 4, max_new_tokens=16)
    assert len(set(output["generations"])) > 1


def test_an_answer_follows_a_pydantic_model(weights: Path) -> None:
    class Sum(BaseModel):
        total: int

    llm = LlamaCppLLM(model=str(weights), n_ctx=256, n_parallel=1, structured_output=Sum)
    llm.load()
    [output] = llm.generate_outputs([chat("How much is 2+2?")], max_new_tokens=60, seed=1)
    llm.unload()
    assert set(json.loads(output["generations"][0] or "")) == {"total"}
    assert llm.structured_output == Sum.model_json_schema()


def test_stop_and_logprobs_are_passed_on(llm: LlamaCppLLM) -> None:
    [output] = llm.generate_outputs(
        [chat("Count: one two three")], stop=["e"], logprobs=True, top_logprobs=2, max_new_tokens=8, seed=1
    )
    assert "e" not in (output["generations"][0] or "")
    assert all(len(token) == 2 for token in output["logprobs"][0])


def test_a_conversation_longer_than_the_context_is_an_error_that_names_it(llm: LlamaCppLLM) -> None:
    with pytest.raises(
        ModelError, match=r"input 1 of 3: .*exceeds the available context size \(256 tokens\)"
    ):
        llm.generate_outputs([chat("a"), chat("hello " * 400), chat("b")], max_new_tokens=2)


def test_a_conversation_longer_than_the_context_fails_alone(llm: LlamaCppLLM) -> None:
    chats = [chat(text) for text in ("a", "hello " * 400, "b", "c", "d", "e")]
    (a,), (too_long,), *others = llm.generate_each(
        chats, 2, stop_at_failure=False, temperature=0.0, max_new_tokens=4
    )
    assert [[a], *others] == [
        llm.generate_outputs([each], 2, temperature=0.0, max_new_tokens=4) for each in chats[:1] + chats[2:]
    ]
    assert isinstance(too_long, ModelError)
    assert "exceeds the available context size" in str(too_long)
    *begun, unsent = llm.generate_each(chats, stop_at_failure=True, max_new_tokens=40)
    assert unsent == [None]
    assert isinstance(begun[0][0], dict)


def test_a_conversation_that_is_none_is_an_error_that_names_it(llm: LlamaCppLLM) -> None:
    with pytest.raises(ModelError, match="input 0 of 1"):
        llm.generate_outputs(["not a chat"])  # type: ignore[list-item]


def test_a_misspelled_argument_lists_the_valid_ones(llm: LlamaCppLLM) -> None:
    with pytest.raises(ParameterError, match=r"no 'max_tokens'.*max_new_tokens.*repeat_penalty"):
        llm.generate_outputs([chat("a")], max_tokens=3)


def test_an_empty_batch_gives_no_output(llm: LlamaCppLLM) -> None:
    assert llm.generate_outputs([]) == []


def test_it_must_be_loaded_and_can_be_loaded_again(weights: Path) -> None:
    llm = LlamaCppLLM(model=str(weights), n_ctx=128, n_parallel=1)
    with pytest.raises(ModelError, match=r"call load\(\)"):
        llm.generate_outputs([chat("a")])
    for _ in range(2):
        llm.load()
        assert llm.generate_outputs([chat("a")], max_new_tokens=1)
        llm.unload()
    llm.unload()


def test_a_loaded_model_is_sent_elsewhere_without_its_weights(llm: LlamaCppLLM) -> None:
    sent = pickle.dumps(llm)
    assert len(sent) < 10_000
    copy = pickle.loads(sent)
    assert copy.model == llm.model
    with pytest.raises(ModelError, match=r"call load\(\)"):
        copy.generate_outputs([chat("a")])


def test_a_file_that_is_no_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "torn.gguf"
    path.write_bytes(b"GGUF nothing")
    with pytest.raises(ModelError, match=r"cannot load .*torn\.gguf"):
        LlamaCppLLM(model=str(path)).load()


def test_an_unknown_setting_of_llama_cpp_is_refused(weights: Path) -> None:
    with pytest.raises(ParameterError, match="has no 'n_batches'"):
        LlamaCppLLM(model=str(weights), extra_kwargs={"n_batches": 3}).load()


def test_the_signature_holds_the_digest_of_the_weights_and_the_name_but_no_folder(tmp_path: Path) -> None:
    known = NAMED_MODELS["smollm2-135m-instruct"].sha256
    assert LlamaCppLLM().signed_state() == {"model": "smollm2-135m-instruct", "sha256": known}
    digest = hashlib.sha256(b"weights").hexdigest()
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        (folder / "other.gguf").write_bytes(b"weights")
        llm = LlamaCppLLM(model=str(folder / "other.gguf"))
        assert llm.signed_state() == {"model": "other.gguf", "sha256": digest}
        assert llm.model_name == "other.gguf"
    assert _signature(LlamaCppLLM(model=str(tmp_path / "here/other.gguf"))) == _signature(llm)
    Path(llm.model).write_bytes(b"other weights")
    assert _signature(LlamaCppLLM(model=str(tmp_path / "here/other.gguf"))) != _signature(llm)


def test_a_model_of_the_hub_is_identified_by_the_commit_that_this_machine_last_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--org--heard-GGUF" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("1" * 40)
    llm = LlamaCppLLM(model="org/heard-GGUF/small.gguf")
    assert llm.signed_state() == {"model": "org/heard-GGUF/small.gguf", "commit": "1" * 40}
    assert llm.model_name == "org/heard-GGUF/small.gguf"
    assert llm.blind_spots() == []
    named = LlamaCppLLM(model="org/heard-GGUF/small.gguf", revision="1" * 40)
    assert _signature(named) == _signature(llm)
    unknown = LlamaCppLLM(model="org/unheard-GGUF", revision="v2")
    assert unknown.signed_state() == {"model": "org/unheard-GGUF", "commit": "v2"}
    (blind,) = step_function(Answers.of(unknown)).blind_spots
    assert "'org/unheard-GGUF': the Hub cannot be asked for its commit" in blind


def _signature(llm: LlamaCppLLM) -> str:
    return step_function(Answers.of(llm)).signature


def test_signing_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_RAY_MODELS_DIR", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", None)
    assert LlamaCppLLM().signed_state()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert LlamaCppLLM(model="someone/some-model-GGUF").signed_state()["commit"] is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelError, match="was not found"):
        LlamaCppLLM(model="/nowhere/model.gguf").signed_state()


def test_llama_cpp_is_quiet_and_ends_with_the_process(weights: Path) -> None:
    script = (
        "from distill_ray.models import LlamaCppLLM\n"
        f"llm = LlamaCppLLM(model={str(weights)!r}, n_ctx=128, n_parallel=1)\n"
        "llm.load()\n"
        "llm.generate_outputs([[{'role': 'user', 'content': 'a'}]], max_new_tokens=2)\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
