"""The model that vLLM runs, for real: on CPU, in an environment of its own that `tools/vllm_env` makes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import BaseModel

from distill_ray.distiset import Distiset
from distill_ray.errors import ModelError, ParameterError
from distill_ray.models import ChatType, GenerateOutput, vLLM
from distill_ray.models.structured_output import constraint_of
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepResources
from distill_ray.steps.tasks import TextGeneration
from distill_ray.typing import Unsigned
from tests.models.model_servers import chat

FOLDER = os.environ.get("DISTILL_RAY_VLLM_MODEL", "")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),  # those of vLLM and what it brings are not ours
    pytest.mark.skipif(
        not FOLDER or importlib.util.find_spec("vllm") is None,
        reason="needs vLLM and a model in Hugging Face's format: `tools/vllm_env` makes both and runs this",
    ),
]

SETTINGS: dict[str, Any] = {
    "model": FOLDER,
    "dtype": "float32",
    "max_model_len": 256,
    "enforce_eager": True,
}


@pytest.fixture(scope="module")
def llm() -> Iterator[vLLM]:
    llm = vLLM(**SETTINGS)
    llm.load()
    yield llm
    llm.unload()


def text_of(outputs: list[GenerateOutput]) -> list[str | None]:
    return [text for output in outputs for text in output["generations"]]


def test_it_answers_each_conversation_in_order(llm: vLLM) -> None:
    questions = [chat(f"Repeat the word {word}.") for word in ("apple", "banana", "cherry", "date")]
    together = llm.generate_outputs(questions, temperature=0.0, max_new_tokens=12)
    alone = [llm.generate_outputs([each], temperature=0.0, max_new_tokens=12)[0] for each in questions]
    assert together == alone
    assert len(set(text_of(together))) > 1


def test_an_answer_says_how_it_ended_and_what_it_cost(llm: vLLM) -> None:
    [cut] = llm.generate_outputs([chat("Tell me a long story.")], max_new_tokens=5, seed=1)
    assert cut["finish_reasons"] == ["length"]
    assert cut["statistics"]["output_tokens"] == [5]
    assert cut["statistics"]["input_tokens"][0] > 30
    [ended] = llm.generate_outputs([chat("Say hi.")], max_new_tokens=150, temperature=0.0)
    assert ended["finish_reasons"] == ["stop"]
    assert 0 < ended["statistics"]["output_tokens"][0] < 150


def test_a_seed_repeats_the_answers_and_each_sample_has_its_own(llm: vLLM) -> None:
    first, second = (
        llm.generate_outputs([chat("Name an animal.")], 3, seed=9, max_new_tokens=12) for _ in "ab"
    )
    assert first == second
    assert len(set(first[0]["generations"])) == 3
    [third] = llm.generate_outputs([chat("Name an animal.")], 1, seed=11, max_new_tokens=12)
    assert third["generations"][0] == first[0]["generations"][2]


def test_without_a_seed_samples_vary_and_without_temperature_they_are_equal(llm: vLLM) -> None:
    [sampled] = llm.generate_outputs([chat("Tell me a story.")], 4, max_new_tokens=16)
    assert len(set(sampled["generations"])) == 4
    assert sampled["statistics"]["output_tokens"] == [16] * 4
    [greedy] = llm.generate_outputs([chat("Tell me a story.")], 3, max_new_tokens=16, temperature=0.0)
    assert len(greedy["generations"]) == 3
    assert len(set(greedy["generations"])) == 1


def test_answers_follow_a_schema_or_an_expression(llm: vLLM) -> None:
    class Sum(BaseModel):
        total: int

    schema = llm.model_copy(update={"structured_output": constraint_of(Sum)})
    [output] = schema.generate_outputs([chat("How much is 2+2?")], max_new_tokens=60, seed=1)
    assert set(json.loads(output["generations"][0] or "")) == {"total"}
    expression = llm.model_copy(update={"structured_output": {"format": "regex", "schema": "(yes|no)!"}})
    outputs = expression.generate_outputs([chat("Is it?")] * 4, max_new_tokens=8)
    assert set(text_of(outputs)) <= {"yes!", "no!"}


def test_a_chat_template_stands_in_place_of_the_models_own(llm: vLLM) -> None:
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    own, bare = (
        each.generate_outputs([chat("One two three")], max_new_tokens=2)[0]["statistics"]["input_tokens"][0]
        for each in (llm, llm.model_copy(update={"chat_template": template}))
    )
    assert bare < 8 < own


def test_stop_and_logprobs_are_passed_on(llm: vLLM) -> None:
    [output] = llm.generate_outputs([chat("Count: one two three")], stop=["e"], logprobs=2, seed=1)
    assert "e" not in (output["generations"][0] or "")
    assert all(len(alternatives) >= 2 for alternatives in output["logprobs"][0])
    [kept] = llm.generate_outputs(
        [chat("Count: one two three")], stop="e", include_stop_str_in_output=True, seed=1
    )
    assert (kept["generations"][0] or "").endswith("e")


def test_further_sampling_parameters_are_passed_on_and_none_is_set_twice(llm: vLLM) -> None:
    [output] = llm.generate_outputs([chat("Hi")], max_new_tokens=20, extra_sampling_params={"min_tokens": 20})
    assert output["statistics"]["output_tokens"] == [20]
    with pytest.raises(ModelError, match="'seed' has an argument of its own"):
        llm.generate_outputs([chat("Hi")], extra_sampling_params={"seed": 1})
    with pytest.raises(ModelError, match="max_mistakes"):
        llm.generate_outputs([chat("Hi")], extra_sampling_params={"max_mistakes": 1})


def test_a_conversation_longer_than_the_context_fails_alone(llm: vLLM) -> None:
    chats = [chat(text) for text in ("a", "hello " * 400, "b")]
    (a,), (too_long,), (b,) = llm.generate_each(chats, stop_at_failure=False, max_new_tokens=4)
    assert isinstance(too_long, ModelError)
    assert "input 1 of 3" in str(too_long)
    assert "256" in str(too_long)
    assert isinstance(a, dict)
    assert isinstance(b, dict)


def test_a_long_answer_does_not_hold_up_those_that_are_asked_for_later(llm: vLLM) -> None:
    ended: list[int] = []

    async def ask(number: int, tokens: int) -> None:
        extra = {"min_tokens": tokens}
        await llm.agenerate(chat(f"{number}"), max_new_tokens=tokens, extra_sampling_params=extra)
        ended.append(number)

    async def all_at_once() -> None:
        await asyncio.gather(ask(0, 40), *(ask(number, 2) for number in range(1, 12)))

    llm._run(all_at_once())
    assert len(ended) == 12
    assert ended[-1] == 0


def test_what_is_no_model_and_an_unknown_argument_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"(?s)cannot load '.*verbose=True"):
        vLLM(model=str(tmp_path)).load()
    with pytest.raises(ParameterError, match="has no 'max_model_length'"):
        vLLM(model=FOLDER, extra_kwargs={"max_model_length": 3}).load()


def test_an_adapter_changes_the_answers(llm: vLLM, tmp_path: Path) -> None:
    adapted = vLLM(**SETTINGS, lora=str(make_adapter(tmp_path / "adapter")))
    adapted.load()
    question = chat("What is the capital of France?")
    answers = {
        text_of(each.generate_outputs([question], temperature=0.0, max_new_tokens=12))[0]
        for each in (llm, adapted)
    }
    adapted.unload()
    assert len(answers) == 2


def make_adapter(folder: Path) -> Path:
    """A LoRA adapter of rank 4 for the first layer's queries, of random weights, as PEFT saves it."""
    size, rank = json.loads(Path(FOLDER, "config.json").read_text())["hidden_size"], 4
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{layer}.lora_A.weight": (rank, size), f"{layer}.lora_B.weight": (size, rank)}
    count, chance = rank * size, random.Random(0)
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [at * count * 4, (at + 1) * count * 4]}
        for at, (name, shape) in enumerate(shapes.items())
    }
    encoded = json.dumps(header).encode()
    weights = struct.pack(f"<{2 * count}f", *(chance.gauss(0, 1) for _ in range(2 * count)))
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + weights)
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


# In the actors of a pipeline.


class Noted(vLLM):
    """Notes what each process sees; its engine is killed from outside at a certain question, once."""

    notes: Unsigned[str]
    deadly: Unsigned[str] = ""

    def load(self) -> None:
        super().load()
        seen = {
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "tensor_parallel_size": self.engine_arguments()["tensor_parallel_size"],
            "processes": [each.pid for each in psutil.Process().children(recursive=True)],
        }
        Path(self.notes, f"{os.getpid()}.json").write_text(json.dumps(seen))

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:  # noqa: A002
        if self.deadly and input[-1]["content"] == self.deadly:
            self._kill_engine()
        return await super().agenerate(input, num_generations, **kwargs)

    def _kill_engine(self) -> None:
        grave = Path(self.notes, "killed")
        if not grave.exists():
            grave.touch()
            for each in psutil.Process().children(recursive=True):
                each.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def ray_with_gpus() -> Iterator[None]:
    """A local Ray with three made-up GPUs."""
    import ray

    ray.init(address="local", num_cpus=4, num_gpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def run(notes: Path, rows: int, resources: StepResources, **fields: Any) -> Distiset:
    notes.mkdir(exist_ok=True)
    kwargs = {"temperature": 0.0, "max_new_tokens": 6}
    model = Noted(**SETTINGS, notes=str(notes), generation_kwargs=kwargs, **fields)
    with Pipeline(name="vllm") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": f"Say {n}"} for n in range(rows)])
        task = TextGeneration(name="task", llm=model, input_batch_size=8, resources=resources)
        load >> task
    return pipeline.run()


def notes_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def left_after(seconds: float, notes: list[dict[str, Any]]) -> list[psutil.Process]:
    """Which of the engines' processes are there after so long; not before the replicas have unloaded."""
    engines = {pid for note in notes for pid in note["processes"]}
    running = [each for each in psutil.process_iter() if each.pid in engines]
    return psutil.wait_procs(running, timeout=seconds)[1]


def test_each_replica_has_its_own_gpu_and_the_next_run_starts_none(
    ray_with_gpus: None, tmp_path: Path
) -> None:
    two = StepResources(replicas=2, gpus=1)
    out = run(tmp_path / "first", 32, two)["default"]["train"]
    assert [row["instruction"] for row in out] == [f"Say {n}" for n in range(32)]
    assert all(row["generation"] for row in out)
    assert {row["model_name"] for row in out} == {Path(FOLDER).name}
    assert {note["gpus"] for note in notes_in(tmp_path / "first")} == {"0", "1"}
    again = run(tmp_path / "again", 32, two, gpu_memory_utilization=0.5)["default"]["train"]
    assert list(again) == list(out)
    assert notes_in(tmp_path / "again") == []
    assert left_after(120, notes_in(tmp_path / "first")) == []


def test_a_replica_whose_engine_dies_is_replaced(ray_with_gpus: None, tmp_path: Path) -> None:
    out = run(tmp_path / "notes", 24, StepResources(gpus=1), deadly="Say 12")["default"]["train"]
    assert all(row["generation"] for row in out)
    assert len(out) == 24
    assert (tmp_path / "notes" / "killed").exists()
    assert len(notes_in(tmp_path / "notes")) == 2


def test_a_replica_with_three_gpus_splits_layers_between_them(ray_with_gpus: None, tmp_path: Path) -> None:
    out = run(tmp_path / "notes", 8, StepResources(gpus=3))["default"]["train"]
    assert all(row["generation"] for row in out)
    (note,) = notes_in(tmp_path / "notes")
    assert note["gpus"] == "0,1,2"
    assert note["tensor_parallel_size"] == 3
    assert len(note["processes"]) > 3
