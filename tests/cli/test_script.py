"""Finding the pipeline in a script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_ray.cli.script import ScriptError, load_pipeline
from distill_ray.errors import ParameterError

Write = Callable[..., Path]

TWO = """\
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts

with Pipeline(name="the first") as first:
    LoadDataFromDicts(name="a", data=[{"n": 1}])
with Pipeline(name="the second") as second:
    LoadDataFromDicts(name="b", data=[{"n": 1}])
again = first
"""


def test_the_only_pipeline_needs_no_name(script: Write) -> None:
    assert load_pipeline(str(script())).name == "doubling"


@pytest.mark.parametrize("wanted", ["second", "the second"])
def test_one_of_several_is_named_by_its_variable_or_its_name(script: Write, wanted: str) -> None:
    assert load_pipeline(f"{script(TWO)}:{wanted}").name == "the second"


def test_two_variables_of_one_pipeline_are_one(script: Write) -> None:
    text = TWO.replace('with Pipeline(name="the second") as second:', "with first:")
    assert list(load_pipeline(str(script(text))).graph.steps) == ["a", "b"]


def test_what_stands_under_main_is_not_run(script: Write) -> None:
    text = TWO + "\nif __name__ == '__main__':\n    raise AssertionError\n"
    assert load_pipeline(f"{script(text)}:first").name == "the first"


def test_the_cache_root_given_takes_the_place_of_the_pipelines_own(script: Write) -> None:
    assert load_pipeline(str(script()), ("gs://team/cache",)).cache_dir == ("gs://team/cache",)
    assert load_pipeline(str(script(name="cli_script_2.py"))).cache_dir is None


def test_modules_beside_the_script_can_be_imported(script: Write) -> None:
    script("WORD = 'beside'", "cli_script_beside.py")
    text = "from cli_script_beside import WORD\n" + TWO.replace('"the first"', "WORD")
    assert load_pipeline(f"{script(text)}:beside").name == "beside"


def test_the_script_does_not_see_our_arguments(script: Write) -> None:
    path = script("import sys\nARGUMENTS = list(sys.argv)\n" + TWO)
    load_pipeline(f"{path}:first")
    seen = sys.modules["cli_script"].ARGUMENTS
    assert seen == [str(path)]


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (TWO, "cli_script.py", r"has 2 pipelines \('first', 'second'\). Say which: .*cli_script.py:first"),
        (TWO, "cli_script.py:third", "has no pipeline 'third'. It has: 'first', 'second'"),
        ("x = 1", "cli_script.py", "has no pipeline: make one at its top level"),
        ("x = 1", "cli_script.py:x", "has no pipeline: make one at its top level"),
        ("", "no_such_script.py", "There is no script .*no_such_script.py"),
        ("", "no_such_script.py:x", "There is no script .*no_such_script.py"),
        ("", ".", "is no Python script"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_told(script: Write, text: str, target: str, message: str) -> None:
    folder = script(text).parent
    with pytest.raises(ParameterError, match=message):
        load_pipeline(str(folder / target))


@pytest.mark.parametrize("name", ["token.py", "click.py"])
def test_a_script_may_not_take_the_name_of_another_module(script: Write, name: str) -> None:
    before = sys.modules.get(name.removesuffix(".py"))
    with pytest.raises(ParameterError, match="has the name of another module"):
        load_pipeline(str(script(TWO, name)))
    assert sys.modules.get(name.removesuffix(".py")) is before


def test_a_script_whose_name_cannot_be_imported_is_refused(script: Write) -> None:
    with pytest.raises(ParameterError, match=r"has a dot before '.py'"):
        load_pipeline(str(script(TWO, "cli_script.v2.py")))


def test_a_script_that_raises_shows_its_own_traceback_only(script: Write) -> None:
    path = script("def divide():\n    return 1 / 0\n\ndivide()\n")
    with pytest.raises(ScriptError) as caught:
        load_pipeline(str(path))
    text = str(caught.value)
    assert text.startswith(f"{path} raised while it was read.\n\nTraceback (most recent call last):\n")
    assert "line 4, in <module>" in text
    assert "line 2, in divide" in text
    assert text.endswith("ZeroDivisionError: division by zero")
    assert "distill_ray/cli" not in text
    assert "importlib" not in text


def test_a_script_that_is_no_python_shows_where(script: Write) -> None:
    with pytest.raises(ScriptError, match=r"(?s)line 1\n    def \(\n.*SyntaxError"):
        load_pipeline(str(script("def (\n")))


def test_a_script_that_exits_is_told_so(script: Write) -> None:
    with pytest.raises(ScriptError, match="SystemExit: 3"):
        load_pipeline(str(script("import sys\nsys.exit(3)\n")))


def test_a_pipeline_that_is_refused_shows_the_line_of_the_script(script: Write) -> None:
    text = TWO.replace('name="b"', 'name="a"').replace(
        'with Pipeline(name="the second") as second', "with first"
    )
    with pytest.raises(ScriptError) as caught:
        load_pipeline(str(script(text)))
    assert 'LoadDataFromDicts(name="a", data=[{"n": 1}])' in str(caught.value)
    assert "GraphError: Two steps of the pipeline are named 'a'" in str(caught.value)
    assert "distill_ray/steps/base.py" not in str(caught.value)
