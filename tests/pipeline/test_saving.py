from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from distill_ray.errors import GraphError, ParameterError
from distill_ray.models import OpenAILLM
from distill_ray.pipeline import Pipeline
from distill_ray.steps import (
    KeepColumns,
    LoadDataFromDicts,
    LoadDataFromFileSystem,
    Step,
    StepInput,
    StepResources,
    step,
)
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import StepOutput


class Fussy(Step):
    """Has parameters of all kinds."""

    anything: Any = None
    by_number: dict[int, str] = Field(default_factory=dict)
    folder: Path | None = None
    token: SecretStr | None = None

    def process(self, *inputs: StepInput) -> StepOutput:
        yield inputs[0]


@step(inputs=["n"], outputs=["m"])
def Twice(inputs: StepInput) -> StepOutput:
    yield [{**row, "m": 2 * row["n"]} for row in inputs]


def pipeline_of(**parameters: Any) -> Pipeline:
    with Pipeline(name="saved", description="All kinds.", enable_metadata=True, requirements=["a>1"]) as made:
        load = LoadDataFromDicts(name="load", data=[{"n": 1, "instruction": "Hi"}])
        ask = TextGeneration(
            name="ask",
            llm=OpenAILLM(model="m", api_key=SecretStr("hunter2"), generation_kwargs={"temperature": 0.5}),
            resources=StepResources(replicas=(1, 2), cpus=0.5),
            input_mappings={"instruction": "instruction"},
        )
        twice = Twice(name="twice")
        join = Fussy(name="join", **parameters)
        load >> [twice, ask]
        [ask, twice] >> join
    return made


def same(pipeline: Pipeline, other: Pipeline) -> bool:
    return (
        other.dump() == pipeline.dump()
        and other.signature == pipeline.signature
        and other.aggregated_steps_signature == pipeline.aggregated_steps_signature
    )


@pytest.mark.parametrize("ending", ["yaml", "yml", "json", "pipeline"])
def test_a_saved_pipeline_is_the_same_again(tmp_path: Path, ending: str) -> None:
    pipeline = pipeline_of(folder=Path("/a/b"), by_number={1: "one"})
    path = tmp_path / "new folder" / f"p.{ending}"
    pipeline.save(path)
    again = Pipeline.from_yaml(path) if ending.startswith("y") else Pipeline.from_json(path)
    assert same(pipeline, again)
    assert (again.name, again.description, again.enable_metadata) == ("saved", "All kinds.", True)
    assert again.requirements == ["a>1"]
    assert again.graph.predecessors("join") == ("ask", "twice")
    assert all(step.pipeline is again for step in again.graph.steps.values())


def test_the_format_may_be_given(tmp_path: Path) -> None:
    pipeline_of().save(tmp_path / "a", format="yaml")
    pipeline_of().save(tmp_path / "b.yaml", format="json")
    assert yaml.safe_load((tmp_path / "a").read_text()) == json.loads((tmp_path / "b.yaml").read_text())


def test_secrets_are_left_out() -> None:
    with Pipeline(name="p") as pipeline:
        LoadDataFromFileSystem(data_files="gs://b/*.jsonl", storage_options={"token": "hunter2"})
    pipelines = pipeline, pipeline_of(token="hunter2", anything={"key": SecretStr("hunter2"), "n": 1})
    assert all("hunter2" not in str(each.dump()) for each in pipelines)
    assert pipelines[1].dump()["pipeline"]["steps"][-1]["step"]["anything"] == {"n": 1}


def test_arguments_of_the_pipeline_may_be_given_anew(tmp_path: Path) -> None:
    again = Pipeline.from_dict(pipeline_of().dump(), name="other", cache_dir=tmp_path)
    assert (again.name, again.cache_dir, again.description) == ("other", tmp_path, "All kinds.")


def test_steps_of_a_file_join_no_other_pipeline() -> None:
    tree = pipeline_of().dump()
    with Pipeline(name="outer") as outer:
        Pipeline.from_dict(tree)
    assert outer.graph.steps == {}


def test_a_value_that_no_file_can_hold_is_named() -> None:
    with pytest.raises(ParameterError, match=r"step 'join', 'anything'\[0\] is a bytes"):
        pipeline_of(anything=[b"x"]).dump()


def test_a_class_that_cannot_be_imported_is_named() -> None:
    class Local(Step):
        def process(self, inputs: StepInput) -> StepOutput:
            yield inputs

    with Pipeline(name="p") as pipeline:
        LoadDataFromDicts(data=[]) >> Local(name="local")
    with pytest.raises(GraphError, match=r"step 'local': cannot import `.*Local` .* must be importable"):
        Pipeline.from_dict(pipeline.dump())


@pytest.mark.parametrize(
    "info", [{"module": "subprocess", "name": "Popen"}, {"module": "os", "name": "system"}]
)
def test_a_file_cannot_call_what_it_likes(info: dict[str, str], tmp_path: Path) -> None:
    tree = pipeline_of().dump()
    tree["pipeline"]["steps"][0]["step"] = {"args": ["touch", str(tmp_path / "done")], "type_info": info}
    with pytest.raises(GraphError, match=r"step 'load': `.*` is no class of a step, a model or the like"):
        Pipeline.from_dict(tree)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"pipeline": {}},
        {"pipeline": None},
        [],
        {"pipeline": {"steps": [{"name": "a"}], "connections": []}},
    ],
)
def test_what_is_no_saved_pipeline_is_refused(tree: Any) -> None:
    with pytest.raises(GraphError, match="not a saved pipeline"):
        Pipeline.from_dict(tree)


def test_a_file_that_is_no_json_or_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(GraphError, match="is no JSON file"):
        Pipeline.from_json(path)
    with pytest.raises(GraphError, match="is no YAML file"):
        Pipeline.from_yaml(path)


TEXTS = st.text() | st.sampled_from(["type_info", "items", "yes", "1", "2020-01-01", "\ud800", "~"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=3), VALUES)
def test_whatever_the_parameters_hold_comes_back(data: list[dict[str, Any]], anything: Any) -> None:
    with Pipeline(name="p") as pipeline:
        LoadDataFromDicts(data=data) >> Fussy(anything=anything)
    tree = pipeline.dump()
    as_json, as_yaml = json.dumps(tree), yaml.safe_dump(tree, sort_keys=False)
    for written in (tree, json.loads(as_json), yaml.safe_load(as_yaml)):
        again = Pipeline.from_dict(written)
        load, fussy = again.graph.steps.values()
        assert repr((load.data, fussy.anything)) == repr((data, anything))  # type: ignore[attr-defined]
        assert again.dump() == tree


def test_numbers_that_are_no_numbers_come_back() -> None:
    again = Pipeline.from_dict(json.loads(json.dumps(pipeline_of(anything=[math.nan, math.inf]).dump())))
    assert repr(again.graph.steps["join"].anything) == "[nan, inf]"  # type: ignore[attr-defined]


def test_the_connections_need_no_certain_order_of_steps() -> None:
    with Pipeline(name="p") as pipeline:
        last = KeepColumns(columns=["n"])
        LoadDataFromDicts(data=[{"n": 1}]) >> last
    assert same(pipeline, Pipeline.from_dict(pipeline.dump()))
