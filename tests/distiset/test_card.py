"""The data set card, and what of a pipeline gets into it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from distill_ray.cache.rows import encode_rows
from distill_ray.distiset import Dataset, Distiset, PipelineOrigin
from distill_ray.distiset.card import hub_card, sample_text, saved_card, size_category
from distill_ray.distiset.origin import ModelOrigin
from distill_ray.models import LLM, OpenAILLM
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, Step, StepInput
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import StepOutput


class Judge(Step):
    llms: list[LLM]
    password: SecretStr = SecretStr("open sesame")

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Nameless(LLM):
    @property
    def model_name(self) -> str:
        raise AttributeError("known once it is loaded")

    def generate(self, inputs: Any, num_generations: int = 1, **kwargs: Any) -> list[Any]:
        return []


def origin_of(*llms: LLM) -> PipelineOrigin:
    with Pipeline(name="cards") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": "x"}])
        load >> TextGeneration(name="write", llm=llms[0]) >> Judge(name="judge", llms=list(llms))
    return PipelineOrigin.of(pipeline.graph, "cards", "What a | is for.")


def gpt(model: str = "gpt", **options: Any) -> OpenAILLM:
    return OpenAILLM(model=model, api_key="sk-of-the-test", **options)


def header_and_text(card: str) -> tuple[dict[str, Any], str]:
    found = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL)
    assert found
    return yaml.safe_load(found[1]), found[2]


def distiset_of(*rows: dict[str, Any], **options: Any) -> Distiset:
    return Distiset({"default": {"train": Dataset.from_tables([encode_rows(list(rows))])}}, **options)


def test_the_card_tells_name_description_steps_models_counts_columns_and_a_row() -> None:
    origin = origin_of(gpt("gpt-a", base_url="http://hidden.example/v1"), gpt("gpt-b"))
    header, text = header_and_text(
        saved_card(
            distiset_of({"a": 1, "b": "x"}, {"c": 2}, origin=origin), {"default": {"train": ["f.parquet"]}}
        )
    )
    assert header["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": ["f.parquet"]}]}
    ]
    assert header["size_categories"] == ["n<1K"]
    assert "# cards\n\nWhat a | is for." in text
    assert "| `write` | `TextGeneration` | `load` | `gpt-a` (OpenAILLM) |" in text
    assert "| `judge` | `Judge` | `write` | `gpt-a` (OpenAILLM), `gpt-b` (OpenAILLM) |" in text
    assert "| `train` | 2 |" in text
    assert "Columns: `a`, `b`, `c`" in text
    assert '"b": "x"' in text
    assert "Distiset.load_from_disk" in text


def test_no_secret_and_no_parameter_is_in_a_card_or_in_what_is_saved() -> None:
    origin = origin_of(gpt(base_url="http://hidden.example/v1"))
    card = saved_card(distiset_of({"a": 1}, origin=origin), {"default": {"train": []}})
    for text in (card, origin.model_dump_json()):
        assert not re.search("sk-of-the-test|hidden|sesame|base_url", text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("meta/llama", "meta/llama"),
        ("/home/me/models/m.gguf", "m.gguf"),
        ("~/m.gguf", "m.gguf"),
        ("https://me:pw@host:80/m?key=1", "https://host/m"),
    ],
)
def test_a_models_name_is_shown_without_folders_and_passwords(name: str, shown: str) -> None:
    assert origin_of(gpt(name)).steps[1].models == [ModelOrigin(class_name="OpenAILLM", name=shown)]


def test_a_model_that_does_not_know_its_name_yet_is_shown_by_its_class() -> None:
    origin = origin_of(Nameless())
    assert origin.steps[1].models == [ModelOrigin(class_name="Nameless", name="")]
    assert "| `load` | Nameless |" in hub_card(distiset_of({"a": 1}, origin=origin), "me/rows")


def test_a_row_cannot_break_out_of_its_block_and_long_values_are_cut() -> None:
    row = {
        "code": "````\n# Not a heading\n````",
        "long": "x" * 5_000,
        "many": list(range(50)),
        "odd": "\ud800",
    }
    text = hub_card(distiset_of(row), "me/rows")
    assert "\n`````json\n" in text
    assert "x" * 1_001 not in text
    assert "(4,000 more characters)" in text
    assert "(40 more items)" in text
    assert '"odd": "\ud800"' in sample_text(row)


def test_the_card_of_a_distiset_without_rows_has_no_sample() -> None:
    header, text = header_and_text(saved_card(distiset_of(), {"default": {"train": []}}))
    assert header["configs"] == []
    assert "Columns: none" in text
    assert "A row:" not in text


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**12, "n>1T")],
)
def test_sizes_are_told_in_the_hubs_words(rows: int, category: str) -> None:
    assert size_category(rows) == category
