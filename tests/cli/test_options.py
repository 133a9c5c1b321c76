"""How ``--param`` is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cli.options import parse_parameters
from distill_ray.cli.script import load_pipeline
from distill_ray.errors import ParameterError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts


@pytest.fixture
def parse(script: Callable[..., Path]) -> Callable[..., dict[str, dict[str, Any]]]:
    pipeline = load_pipeline(str(script()))
    return lambda *given: parse_parameters(pipeline, given)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('["a", 1]', ["a", 1]),
        ('"3"', "3"),
        ("word", "word"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_a_value_is_json_or_text(parse: Any, text: str, value: Any) -> None:
    assert parse(f"double.factor={text}") == {"double": {"factor": value}}


def test_several_parameters_are_gathered_by_step(parse: Any) -> None:
    assert parse("double.factor=3", "load.batch_size=2", "double.title=y") == {
        "double": {"factor": 3, "title": "y"},
        "load": {"batch_size": 2},
    }


def test_fields_of_nested_models_stand_alone(parse: Any) -> None:
    assert parse("double.resources.replicas=2") == {"double": {"resources": {"replicas": 2}}}


def test_fields_of_dicts_keep_the_others(parse: Any) -> None:
    assert parse("double.options.b.d=4", "double.options.e=5") == {
        "double": {"options": {"a": 1, "b": {"c": 2, "d": 4}, "e": 5}}
    }


@pytest.mark.parametrize("text", ["x", "double", "double.factor", "=3", ".=3", "double.=3", ".factor=3"])
def test_another_form_is_refused(parse: Any, text: str) -> None:
    with pytest.raises(ParameterError, match=f"--param wants STEP.FIELD=VALUE, not '{text}'"):
        parse(text)


def test_names_of_steps_may_have_dots_and_equals_signs() -> None:
    with Pipeline(name="named") as pipeline:
        for name in ("load", "load.v1", "a=b"):
            LoadDataFromDicts(name=name, data=[{"n": 1}])
    given = ("load.v1.batch_size=3", "load.batch_size=2", "a=b.batch_size=1", "load.v2.x=y=z")
    assert parse_parameters(pipeline, given) == {
        "load.v1": {"batch_size": 3},
        "load": {"batch_size": 2, "v2": {"x": "y=z"}},
        "a=b": {"batch_size": 1},
    }
