"""What is part of a step's signature, and what is not."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PrivateAttr, SecretBytes, SecretStr

from distill_ray.errors import SignatureError
from distill_ray.models import LLM, ChatType, GenerateOutput, LlamaCppLLM, OpenAILLM
from distill_ray.signature.compare import Change, changes
from distill_ray.steps import (
    GeneratorStep,
    GlobalStep,
    KeepColumns,
    LoadDataFromDicts,
    RuntimeParameter,
    Step,
    StepInput,
    StepResources,
    step,
)
from distill_ray.steps.base import BaseStep
from distill_ray.steps.signing import StepFunction, step_function
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import StepOutput, Unsigned


def signature(made: BaseStep) -> str:
    return step_function(made).signature


class Anything(Step):
    """Takes whatever there is as parameters."""

    value: Any = None
    other: Any = None

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Settings:
    top: Any = 1
    names: list[str] = field(default_factory=list)


class Point(NamedTuple):
    x: int
    y: int


class Judge:
    def __init__(self, at: Any) -> None:
        self.at = at


class Options(BaseModel):
    top: Any = 1
    token: SecretStr | None = None


def add(x: int) -> int:
    return x + 1


def subtract(x: int) -> int:
    return x - 1


DIFFERENT: list[Any] = [
    *(None, [], {}, set(), "", [""], 1, 1.0, True, "1", b"1", ["a-b"], ["a", "b"], ["a,b"], [["a", "b"]]),
    *(Mode.FAST, Mode.SLOW, "fast", Mode, Settings, int, str, "int", Path("a"), "a"),
    *({"a": 1}, {"a": 1.0}, {1: "a"}, {"top": 1, "names": []}, {"top": 1}, [1, 2], {1, 2}, re.compile("a")),
    *(Settings(), Settings(2), Settings(1, ["a"]), Options(), Options(top=2), Point(1, 2)),
    *(Judge(1), Judge(2), Judge([1]), Judge(Judge(1)), add, subtract, len, max, os.path.join),
    *("abc".join, "abd".join, Judge(1).__init__, Judge(2).__init__),  # type: ignore[misc]
    *(lambda x: x + 1, lambda x: x + 2),
]


def test_parameters_that_look_alike_differ() -> None:
    functions = [step_function(Anything(value=value)) for value in DIFFERENT]
    assert len({function.signature for function in functions}) == len(DIFFERENT)
    assert len({json.dumps(function.preimage) for function in functions}) == len(DIFFERENT)


def test_a_parameter_is_known_by_its_name() -> None:
    assert signature(Anything(value=1)) != signature(Anything(other=1))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.text("a-,1", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(plain, plain)
def test_two_parameter_trees_share_a_signature_only_if_they_are_the_same(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    first, second = step_function(Anything(value=one)), step_function(Anything(value=other))
    assert (first.signature == second.signature) == same
    assert (changes(first.preimage, second.preimage) == ()) == same


@given(st.dictionaries(st.text(max_size=3), plain, min_size=2))
def test_the_order_of_a_dict_changes_nothing(value: dict[str, Any]) -> None:
    turned = dict(reversed(list(value.items())))
    assert signature(Anything(value=turned)) == signature(Anything(value=value))


def test_how_a_step_is_run_changes_nothing() -> None:
    plain = Anything(value=1)
    for other in (
        Anything(value=1, name="another"),
        Anything(value=1, resources=StepResources(replicas=4, gpus=1)),
        Anything(value=1, input_batch_size=7),
        Anything(value=1, use_cache=False),
    ):
        assert signature(other) == signature(plain)
    excluding = [Anything(value=1, other=n, exclude_from_signature=frozenset({"other"})) for n in (1, 2)]
    assert signature(excluding[0]) == signature(excluding[1])


def test_mappings_and_kind_change_the_signature() -> None:
    class AsGlobal(GlobalStep):
        def process(self, inputs: StepInput) -> StepOutput:
            yield inputs

    def of(**mappings: Any) -> str:
        return signature(KeepColumns(columns=["a"], **mappings))

    found = {
        of(),
        of(input_mappings={"a": "b"}),
        of(output_mappings={"a": "b"}),
        of(input_mappings={"b": "a"}),
    }
    assert len(found) == 4
    assert "$global" in step_function(AsGlobal()).preimage


def test_an_unknown_name_in_exclude_from_signature_is_an_error() -> None:
    made = Anything(name="odd", exclude_from_signature=frozenset({"valeu"}))
    with pytest.raises(
        SignatureError, match=r"Step 'odd': exclude_from_signature names valeu.*it has .*value"
    ):
        signature(made)


# Loaders


def test_changed_added_and_reordered_data_change_the_signature() -> None:
    def of(*texts: Any) -> str:
        return signature(LoadDataFromDicts(data=[{"text": text} for text in texts]))

    found = [
        of("a", "b"),
        of("b", "a"),
        of("a"),
        of("a", "b", "c"),
        of("a", None),
        of("a", 1),
        of("a", True),
        of(),
    ]
    assert len(set(found)) == len(found)
    assert of("a", "b") == found[0]


def test_signing_a_hundred_thousand_rows_is_quick_and_keeps_none_of_them() -> None:
    made = LoadDataFromDicts(data=[{"instruction": f"How much is {n} + 2?", "n": n} for n in range(100_000)])
    start = time.process_time()
    function = step_function(made)
    assert time.process_time() - start < 3  # 0.3 s when nothing else runs
    assert len(json.dumps(function.preimage)) < 1_000
    assert function.preimage["$generator"]["data"]["$long_list"][0] == 100_000


class Private(Step):
    _suffix: str = PrivateAttr(default="!")
    _seen: list[int] = PrivateAttr(default_factory=list)
    _opaque: Any = PrivateAttr(default=None)

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


def test_a_private_attribute_that_was_set_counts() -> None:
    def of(exclude: frozenset[str] = frozenset(), **private: Any) -> StepFunction:
        made = Private(exclude_from_signature=exclude)
        for name, value in private.items():
            setattr(made, name, value)
        return step_function(made)

    base = of()
    assert of(_suffix="!", _seen=[]).signature == base.signature
    assert len({base.signature, of(_suffix="?").signature, of(_seen=[1]).signature}) == 3
    without = frozenset({"_suffix"})
    assert of(without, _suffix="?").signature == of(without).signature
    assert of(_suffix=SecretStr("a")).signature == of(_suffix=SecretStr("b")).signature
    unseen = of(_opaque=(each for each in "ab"))
    assert unseen.blind_spots == ("'Private' holds '_opaque', whose content does not count.",)


# Models


class Echo(LLM):
    prefix: str = ""
    api_key: SecretStr | None = None
    timeout: Unsigned[float] = 1.0
    _calls: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return "echo"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        raise NotImplementedError


def task(llm: LLM, **parameters: Any) -> TextGeneration:
    return TextGeneration(name="generation", llm=llm, **parameters)


def test_a_models_parameters_count_and_how_it_is_reached_does_not() -> None:
    def of(**parameters: Any) -> str:
        return signature(task(OpenAILLM(model="m", **parameters)))

    base = of(base_url="http://a/v1")
    same = {
        of(base_url="http://a/v1", api_key=SecretStr("sk-1")),
        of(base_url="http://a/v1", default_headers={"X": SecretStr("sk-2")}),
        of(base_url="http://a/v1", timeout=1, max_retries=0, max_concurrency=2),
    }
    assert same == {base}
    others = [of(base_url="http://b/v1"), of(base_url="http://a/v1", generation_kwargs={"temperature": 0.5})]
    assert base not in others


def test_one_users_key_and_no_key_give_one_signature() -> None:
    assert signature(task(Echo(api_key=SecretStr("a")))) == signature(task(Echo()))
    assert signature(task(Echo(timeout=2))) == signature(task(Echo()))
    assert signature(task(Echo(prefix="a"))) != signature(task(Echo()))
    private = Echo()
    private._calls = 3
    assert signature(task(private)) == signature(task(Echo()))


def test_what_was_put_into_a_model_without_being_a_parameter_is_told() -> None:
    llm = Echo()
    assert step_function(task(llm)).blind_spots == ()
    llm._calls = 3
    assert step_function(task(llm)).blind_spots == ("'Echo' holds '_calls', whose content does not count.",)


def test_the_code_of_a_users_model_counts() -> None:
    function = step_function(task(Echo()))
    assert any("def generate" in text for text in function.code.values())


def test_the_named_models_weights_count() -> None:
    described = step_function(task(LlamaCppLLM())).preimage["$step"]["llm"]["$model"]
    assert set(described["_state"]) == {"model", "sha256"}
    assert "n_threads" not in described


@pytest.mark.parametrize(
    "value",
    [
        SecretStr("hidden-1"),
        [SecretStr("hidden-1")],
        {"key": SecretStr("hidden-1")},
        {"deep": [{"key": (SecretStr("hidden-1"),)}]},
        Settings(top=SecretStr("hidden-1")),
        Options(token=SecretStr("hidden-1")),
        Options(top={"key": SecretBytes(b"hidden-1")}),
        Judge(SecretStr("hidden-1")),
        Judge([Judge(SecretStr("hidden-1"))]),
        {SecretStr("hidden-1")},
    ],
)  # fmt: skip
def test_no_secret_reaches_a_key_or_a_file(value: Any) -> None:
    def changed(item: Any) -> Any:
        if isinstance(item, SecretStr):
            return SecretStr("hidden-2")
        if isinstance(item, SecretBytes):
            return SecretBytes(b"hidden-2")
        if isinstance(item, list | tuple | set):
            return type(item)(changed(each) for each in item)
        if isinstance(item, dict):
            return {key: changed(each) for key, each in item.items()}
        if isinstance(item, Settings | Judge):
            return type(item)(*[changed(each) for each in vars(item).values()])
        if isinstance(item, Options):
            return Options(top=changed(item.top), token=changed(item.token))
        return item

    one, other = step_function(Anything(value=value)), step_function(Anything(value=changed(value)))
    assert one.signature == other.signature
    assert "hidden" not in json.dumps([one.preimage, dict(one.code)]) + repr(one)


def test_a_secret_in_a_list_leaves_its_place() -> None:
    assert signature(Anything(value=[SecretStr("a"), "b"])) != signature(Anything(value=["b"]))


# Code


def test_a_changed_process_changes_the_signature() -> None:
    def make(by: int) -> list[type[Step]]:
        class One(Step):
            def process(self, inputs: StepInput) -> StepOutput:
                yield [{**row, "n": row["n"] + by} for row in inputs]

        one = One

        class One(Step):  # type: ignore[no-redef]
            def process(self, inputs: StepInput) -> StepOutput:
                yield [{**row, "n": row["n"] - by} for row in inputs]

        return [one, One]

    found = [signature(cls()) for by in (1, 2) for cls in make(by)]
    assert len(set(found)) == 4
    assert signature(make(1)[0]()) == found[0]


def test_a_steps_version_stands_for_its_code_but_not_for_its_subclasses() -> None:
    def make(version: str | None, by: int) -> type[Step]:
        class Versioned(Step):
            def process(self, inputs: StepInput) -> StepOutput:
                yield [{"n": by} for _ in inputs]

        Versioned.version = version
        return Versioned

    def sub(base: type[Step], by: int) -> type[Step]:
        class Sub(base):  # type: ignore[misc, valid-type]
            def other(self) -> int:
                return by

        return Sub

    assert signature(make("1", 1)()) == signature(make("1", 2)())
    assert signature(make("1", 1)()) != signature(make("2", 1)())
    assert signature(make(None, 1)()) != signature(make(None, 2)())
    assert signature(sub(make("1", 1), 1)()) == signature(sub(make("1", 2), 1)())
    assert signature(sub(make("1", 1), 1)()) != signature(sub(make("1", 1), 2)())
    assert signature(sub(make("1", 1), 1)()) != signature(sub(make("2", 1), 1)())


def test_a_version_of_something_else_than_a_step_or_model_is_an_ordinary_attribute() -> None:
    def make(by: int) -> type:
        class Api:
            version: ClassVar[str] = "v1"

            def call(self) -> int:
                return by

        return Api

    assert signature(Anything(value=make(1))) != signature(Anything(value=make(2)))


def test_classes_that_ship_count_by_their_public_name_and_version() -> None:
    described = step_function(KeepColumns(columns=["a"])).preimage["$step"]
    assert described["_class"]["name"] == "distill_ray.steps.KeepColumns"
    assert step_function(KeepColumns(columns=["a"])).code == {}

    class Mine(KeepColumns):
        pass

    assert signature(Mine(columns=["a"])) != signature(KeepColumns(columns=["a"]))


def test_the_function_of_a_step_made_by_the_decorator_counts() -> None:
    def make(by: int, default: int) -> type[Any]:
        @step(inputs=["n"], outputs=["n"])
        def Shift(inputs: StepInput, top: RuntimeParameter[int] = default) -> StepOutput:
            """Shift."""
            yield [{"n": min(row["n"] + by, top)} for row in inputs]

        return Shift

    assert signature(make(1, 5)()) == signature(make(1, 5)())
    assert len({signature(make(1, 5)()), signature(make(2, 5)()), signature(make(1, 6)())}) == 3
    assert "def Shift" in step_function(make(1, 5)()).code["Shift"]

    class Sub(make(1, 5)):  # type: ignore[misc]
        pass

    assert "def Shift" in step_function(Sub()).code["Shift"]


def test_a_model_that_code_captured_is_signed_as_a_parameter_is() -> None:
    def make(llm: LLM) -> type[Any]:
        @step()
        def ask(inputs: StepInput) -> StepOutput:
            yield [{"answer": llm.model_name} for _ in inputs]

        return ask

    def of(**parameters: Any) -> str:
        return signature(make(OpenAILLM(model="m", **parameters))())

    assert of(api_key=SecretStr("a")) == of(api_key=SecretStr("b"))
    assert of(generation_kwargs={"temperature": 0.1}) != of(generation_kwargs={"temperature": 0.2})


def test_functions_and_classes_as_parameters_count_by_their_code() -> None:
    def make(by: int) -> Callable[[int], int]:
        return lambda x: x + by

    assert signature(Anything(value=make(1))) == signature(Anything(value=make(1)))
    assert signature(Anything(value=make(1))) != signature(Anything(value=make(2)))
    assert signature(Anything(value={"key": [make(1)]})) != signature(Anything(value={"key": [make(2)]}))
    assert "Settings" in step_function(Anything(value=Settings)).code


class Notes(BaseModel):
    _seen: list[int] = PrivateAttr(default_factory=list)


class Texts(list[str]):
    """Texts that know their style."""

    style: str = ""


def texts(style: int) -> Texts:
    made = Texts(["text"])
    made.style = str(style)
    return made


class Tries:
    """Calls a function several times, and says that it wraps it."""

    def __init__(self, function: Callable[..., Any], times: int) -> None:
        functools.update_wrapper(self, function)
        self.times = times

    def __call__(self, *arguments: Any) -> list[Any]:
        return [self.__wrapped__(*arguments) for _ in range(self.times)]  # type: ignore[attr-defined]


class MoreSettings(Settings):
    """No dataclass itself: its own attribute is no field."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self.more = more


def notes(*seen: int) -> Notes:
    made = Notes()
    made._seen = list(seen)
    return made


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(texts, id="attribute of a list"),
        pytest.param(lambda n: Tries(len, times=n), id="attribute of a wrapper"),
        pytest.param(MoreSettings, id="attribute of a dataclass that is no field"),
        pytest.param(notes, id="private attribute of a model"),
    ],
)
def test_what_a_users_object_holds_counts_whatever_its_kind(make: Callable[[int], Any]) -> None:
    assert signature(Anything(value=make(1))) == signature(Anything(value=make(1)))
    assert signature(Anything(value=make(1))) != signature(Anything(value=make(2)))


class Lazy:
    """Works something out when it is first asked for."""

    def __init__(self, n: int) -> None:
        self.n = n

    @functools.cached_property
    def opened(self) -> object:
        return object()


def test_what_an_object_worked_out_and_keeps_does_not_count() -> None:
    asked = Lazy(1)
    assert asked.opened
    assert signature(Anything(value=asked)) == signature(Anything(value=Lazy(1)))
    assert signature(Anything(value=asked)) != signature(Anything(value=Lazy(2)))


# Errors


class Handle:
    def __init__(self) -> None:
        self.lines: Iterator[int] = iter([1])


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), "value: a builtins.object"),
        ([0, {"a": object()}], r"value\[1\]\.a: a builtins.object"),
        (Settings(top=[object()]), r"value\.top\[0\]: a builtins.object"),
        (Options(top={"b c": object()}), r"value\.top\['b c'\]: a builtins.object"),
        (Handle(), r"value\.lines: a builtins.list_iterator"),
    ],
)
def test_a_value_that_cannot_be_signed_is_an_error_naming_step_field_and_remedy(
    value: Any, where: str
) -> None:
    remedy = r"Register an encoder .*annotate the field Unsigned .*exclude_from_signature"
    with pytest.raises(SignatureError, match=rf"^Step 'odd': {where} cannot be signed.*{remedy}"):
        step_function(Anything(name="odd", value=value))
    excluded = Anything(value=value, exclude_from_signature=frozenset({"value"}))
    assert signature(excluded) == signature(Anything(value=1, exclude_from_signature=frozenset({"value"})))


def test_a_parameter_that_holds_itself_is_an_error() -> None:
    judge = Judge(None)
    judge.at = judge
    with pytest.raises(SignatureError, match=r"Step 'odd': .*contains itself"):
        step_function(Anything(name="odd", value=judge))


# What explain needs


def test_a_changed_field_is_named() -> None:
    def of(temperature: float, data: list[Any]) -> Any:
        llm = OpenAILLM(model="m", generation_kwargs={"temperature": temperature, "stop": ["a", "b"]})
        made = Anything(value=llm, other=data)
        return json.loads(json.dumps(step_function(made).preimage))

    few, many = [1, 2], list(range(500))
    assert changes(of(0.7, few), of(0.8, few)) == (Change("value.generation_kwargs.temperature", 0.7, 0.8),)
    assert [change.path for change in changes(of(0.7, few), of(0.7, many))] == ["other"]
    assert changes(of(0.7, many), of(0.7, many)) == ()


def test_code_is_kept_piece_by_piece_to_be_compared() -> None:
    function = step_function(Anything(value=add))
    assert function.code["add"] == "def add ( x : int ) -> int :\n    return x + 1"
    assert function.code["Anything"].startswith("class Anything ( Step ) :")
    assert function.blind_spots == ()


SCRIPT = """
from distill_ray.models import OpenAILLM
from distill_ray.steps import LoadDataFromDicts, Step, step
from distill_ray.steps.signing import StepFunction, step_function
from distill_ray.steps.tasks import TextGeneration

class Mine(Step):
    names: set[str] = {"a", "b", "c"}
    def process(self, inputs):
        yield inputs

@step(inputs=["a"])
def made(inputs):
    yield inputs

steps = [LoadDataFromDicts(data=[{"b": 1, "a": {2: 3}}]), Mine(), made(),
         TextGeneration(llm=OpenAILLM(model="m", base_url="http://a"))]
for each in steps:
    print(step_function(each).signature)
"""


def test_another_process_and_hash_seed_give_the_same_signatures(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    printed = {
        subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "77")
    }
    assert len(printed) == 1
    assert len(set(printed.pop().split())) == 4


class Numbers(GeneratorStep):
    top: int = Field(default=3, description="How many.")

    def process(self, offset: int = 0) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        yield [{"n": n} for n in range(offset, self.top)], True


def test_a_default_and_the_same_value_given_are_one() -> None:
    assert signature(Numbers()) == signature(Numbers(top=3))
    assert signature(Numbers()) != signature(Numbers(top=4))
    assert "$generator" in step_function(Numbers()).preimage
