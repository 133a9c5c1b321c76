"""What is known of a vLLM model where vLLM is not installed: its declaration and its signature."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import pytest
from pydantic import BaseModel

from distill_ray.errors import ModelError, ParameterError
from distill_ray.models import vLLM
from distill_ray.steps.signing import step_function
from distill_ray.steps.tasks.answers import Answers


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    (folder / ".cache").mkdir(parents=True)
    (folder / ".cache" / "lock").write_text(str(folder))
    (folder / "README.md").write_text(str(folder))
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def signature(llm: vLLM) -> str:
    return step_function(Answers.of(llm)).signature


def test_a_folder_is_signed_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    here, there = model_folder(tmp_path / "here" / "tiny"), model_folder(tmp_path / "there" / "tiny")
    assert signature(vLLM(model=str(here))) == signature(vLLM(model=str(there)))
    assert vLLM(model=str(here)).model_name == "tiny"
    (there / "config.json").write_text('{"rope_theta": 2}')
    assert signature(vLLM(model=str(here))) != signature(vLLM(model=str(there)))


def test_a_file_counts_by_its_name_and_its_place(tmp_path: Path) -> None:
    here, there = model_folder(tmp_path / "here" / "tiny"), model_folder(tmp_path / "there" / "tiny")
    (there / "model.safetensors").rename(there / "other.safetensors")
    assert signature(vLLM(model=str(here))) != signature(vLLM(model=str(there)))


def test_a_path_without_a_folder_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(ModelError, match=r"/nowhere/model.*Give the path of a folder"):
        vLLM(model="/nowhere/model").signed_state()


def test_a_repository_is_signed_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "1" * 40
    llm = vLLM(model="org/heard", revision=commit)
    assert llm.signed_state() == {"model": {"name": "org/heard", "commit": commit}}
    assert llm.blind_spots() == []
    unheard = vLLM(model="org/unheard", lora="org/adapter", revision="v2")
    assert unheard.signed_state()["model"]["commit"] == "v2"
    assert [spot.split(":")[0] for spot in unheard.blind_spots()] == [
        "vLLM 'org/unheard'",
        "vLLM 'org/adapter'",
    ]


def test_the_adapter_and_the_tokenizer_count(tmp_path: Path) -> None:
    model = str(model_folder(tmp_path / "tiny"))
    adapter, other = (str(model_folder(tmp_path / name, name.encode())) for name in ("adapter", "other"))
    plain, adapted = vLLM(model=model), vLLM(model=model, lora=adapter)
    assert adapted.model_name == "tiny+adapter"
    signatures = {signature(each) for each in (plain, adapted, vLLM(model=model, lora=other))}
    assert len(signatures | {signature(vLLM(model=model, tokenizer=other))}) == 4


def test_what_the_answers_depend_on_is_signed_and_how_the_engine_runs_is_not(tmp_path: Path) -> None:
    model = str(model_folder(tmp_path / "tiny"))
    plain = signature(vLLM(model=model))
    runs = {
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "max_num_seqs": 8,
        "enforce_eager": True,
        "verbose": True,
        "max_concurrency": 3,
    }
    assert signature(vLLM(model=model, **runs)) == plain
    computes = {
        "dtype": "float32",
        "quantization": "fp8",
        "max_model_len": 64,
        "chat_template": "{{ messages }}",
        "structured_output": {"format": "regex", "schema": "a+"},
        "seed": 1,
        "extra_kwargs": {"kv_cache_dtype": "fp8"},
        "trust_remote_code": True,
        "tokenizer_mode": "slow",
    }
    for name, value in computes.items():
        assert signature(vLLM(model=model, **{name: value})) != plain, name


def test_a_structure_is_a_schema_a_pydantic_model_or_an_expression() -> None:
    class Sum(BaseModel):
        total: int

    schema = {"format": "json", "schema": Sum.model_json_schema()}
    for given in (Sum, Sum.model_json_schema(), schema, {"format": "json", "schema": Sum}):
        assert vLLM(model="org/m", structured_output=given).structured_output == schema
    expression = {"format": "regex", "schema": "a+"}
    assert vLLM(model="org/m", structured_output=expression).structured_output == expression
    with pytest.raises(ParameterError, match="'regex' the schema is the expression"):
        vLLM(model="org/m", structured_output={"format": "regex", "schema": {}})
    with pytest.raises(ParameterError, match="format 'xml' is not supported: use 'json' or 'regex'"):
        vLLM(model="org/m", structured_output={"format": "xml", "schema": ""})
    for kind in ("json", "regex"):
        with pytest.raises(ParameterError, match=f"the 'schema' is missing beside 'format': .*{kind}"):
            vLLM(model="org/m", structured_output={"format": kind})


def test_a_misspelled_argument_lists_the_valid_ones() -> None:
    with pytest.raises(ParameterError, match=r"no 'max_tokens'.*max_new_tokens.*repetition_penalty"):
        vLLM(model="org/m", generation_kwargs={"max_tokens": 3})


@pytest.mark.parametrize(
    ("variables", "fields", "expected"),
    [
        ({}, {}, (1, None)),
        ({"CUDA_VISIBLE_DEVICES": "3"}, {}, (1, None)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, {}, (4, "mp")),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, {"pipeline_parallel_size": 2}, (2, "mp")),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, {"tensor_parallel_size": 1}, (1, None)),
        ({"DISTILL_RAY_SPREAD_GPUS": "16"}, {}, (16, "ray")),
        ({"DISTILL_RAY_SPREAD_GPUS": "16"}, {"pipeline_parallel_size": 2}, (8, "ray")),
    ],
)
def test_a_model_is_spread_over_the_gpus_that_its_replica_has(
    variables: dict[str, str],
    fields: dict[str, int],
    expected: tuple[int, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    arguments = vLLM(model="org/m", **fields).engine_arguments()
    found = arguments["tensor_parallel_size"], arguments.get("distributed_executor_backend")
    assert found == expected


def test_further_arguments_of_the_engine_are_passed_on() -> None:
    arguments = vLLM(model="org/m", extra_kwargs={"kv_cache_dtype": "fp8", "seed": 5}).engine_arguments()
    assert (arguments["kv_cache_dtype"], arguments["seed"]) == ("fp8", 5)
    assert "quantization" not in arguments


def test_it_travels_without_the_engine_and_must_be_loaded() -> None:
    copy = pickle.loads(pickle.dumps(vLLM(model="org/m", lora="org/a")))
    with pytest.raises(ModelError, match=r"call load\(\)"):
        copy.generate_outputs([[{"role": "user", "content": "a"}]])


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_loading_names_the_extra() -> None:
    with pytest.raises(ModelError, match=r"pip install 'distill-ray\[vllm\]'"):
        vLLM(model="org/m").load()
