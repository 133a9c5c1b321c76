from __future__ import annotations

import copy
import logging
import pickle
import traceback
from enum import Enum
from typing import Any

import pytest
from pydantic import Field, PrivateAttr, SecretStr, model_validator
from ray import cloudpickle

from distill_ray.errors import GraphError, ParameterError
from distill_ray.models import OpenAILLM
from distill_ray.steps.base import ACTIVE_REGISTRY, BaseStep, GeneratorStep, GlobalStep, Step, snake_case
from distill_ray.steps.routing import RoutingBatchFunction
from distill_ray.steps.tasks import Task, TextGeneration
from distill_ray.types import GeneratorStepOutput, RuntimeParameter, StepInput, StepOutput


class Numbers(GeneratorStep):
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        yield [{"n": n} for n in range(offset, 3)], True


class AddOne(Step):
    by: int = 1

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "n": row["n"] + self.by} for row in inputs]


class Total(GlobalStep):
    def process(self, inputs: StepInput) -> StepOutput:
        yield [{"total": sum(row["n"] for row in inputs)}]


class Registry:
    """The smallest pipeline: names and edges."""

    def __init__(self) -> None:
        self.edges: list[tuple[str | None, str | None]] = []
        self.steps = 0

    def __len__(self) -> int:
        return 0

    def add_step(self, step: BaseStep) -> None:
        self.steps += 1
        step.bind(self, step.name or f"step_{self.steps}")

    def connect_steps(
        self, upstream: BaseStep, *downstream: BaseStep, routing: RoutingBatchFunction | None = None
    ) -> None:
        self.edges += [(upstream.name, step.name) for step in downstream]


@pytest.fixture
def registry() -> Any:
    made = Registry()
    token = ACTIVE_REGISTRY.set(made)
    yield made
    ACTIVE_REGISTRY.reset(token)


def test_a_step_works_alone() -> None:
    assert next(AddOne(by=2).process([{"n": 1}])) == [{"n": 3}]
    assert next(Numbers().process(offset=1)) == ([{"n": 1}, {"n": 2}], True)


def test_a_step_joins_the_pipeline_whose_block_it_is_made_in(registry: Registry) -> None:
    assert AddOne().name == "step_1"
    assert AddOne(name="mine").name == "mine"
    assert registry.steps == 2


def test_a_step_joins_the_pipeline_it_is_given_even_an_empty_one() -> None:
    registry = Registry()
    assert AddOne(pipeline=registry).name == "step_1"


def test_arrows_connect_steps_and_lists_of_steps(registry: Registry) -> None:
    a, b, c, d = Numbers(name="a"), AddOne(name="b"), AddOne(name="c"), Total(name="d")
    a >> [b, c] >> d
    assert registry.edges == [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]


def test_arrows_go_on_from_their_right_hand_side(registry: Registry) -> None:
    a, b, c = Numbers(name="a"), AddOne(name="b"), AddOne(name="c")
    assert (a >> b >> c) is c
    assert registry.edges == [("a", "b"), ("b", "c")]


def test_connect_takes_several_steps(registry: Registry) -> None:
    a, b, c = Numbers(name="a"), AddOne(name="b"), AddOne(name="c")
    a.connect(b, c)
    assert registry.edges == [("a", "b"), ("a", "c")]


def test_connecting_outside_of_a_pipeline_says_what_to_do() -> None:
    with pytest.raises(
        GraphError, match=r"Step 'Numbers' is in no pipeline: create it inside `with Pipeline"
    ):
        Numbers() >> AddOne()


def test_connecting_what_is_no_step_is_an_error(registry: Registry) -> None:
    with pytest.raises(GraphError, match="Only steps can be connected, got 3"):
        Numbers() >> [3]


def test_an_unknown_parameter_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ParameterError, match=r"Step 'plus' \(AddOne\): there is no parameter 'bye'.*, by\."):
        AddOne(name="plus", bye=2)  # type: ignore[call-arg]


def test_a_value_that_does_not_fit_is_an_error_that_names_the_parameter() -> None:
    with pytest.raises(ParameterError, match=r"AddOne: 'by': .*integer.*, got 'one'"):
        AddOne(by="one")
    with pytest.raises(ParameterError, match=r"TextGeneration: the parameter 'llm' must be given"):
        TextGeneration()  # type: ignore[call-arg]


def test_a_parameter_that_is_changed_must_fit_too() -> None:
    step = AddOne(name="plus")
    with pytest.raises(ParameterError, match=r"Step 'plus' \(AddOne\): 'by': .* got 'one'"):
        step.by = "one"  # type: ignore[assignment]
    assert step.by == 1


def test_a_secret_is_in_no_error() -> None:
    class Guarded(AddOne):
        token: SecretStr | None = None
        options: dict[str, str] = Field(default_factory=dict, repr=False)

    for given in ({"token": ["hunter2"]}, {"options": {"key": ["hunter2"]}}):
        with pytest.raises(ParameterError) as caught:
            Guarded(**given)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_step_that_was_refused_joins_no_pipeline(registry: Registry) -> None:
    class Careful(AddOne):
        @model_validator(mode="after")
        def _never(self) -> Careful:
            raise ValueError("not like this")

    with pytest.raises(ParameterError, match="Careful: not like this"):
        Careful()
    assert registry.steps == 0


def test_a_class_without_the_methods_its_base_wants_is_an_error_that_names_them() -> None:
    class Forgetful(Step):
        pass

    class Speechless(Task):
        pass

    with pytest.raises(GraphError, match=r"Step 'a' \(Forgetful\) has no `process`"):
        Forgetful(name="a")  # type: ignore[abstract]
    with pytest.raises(GraphError, match=r"Speechless has no `format_input` and no `format_output`"):
        Speechless()  # type: ignore[abstract, call-arg]


def test_a_runtime_parameter_without_a_default_may_be_given_later() -> None:
    class Scaled(AddOne):
        factor: RuntimeParameter[int]

    assert Scaled().factor is None  # type: ignore[call-arg]
    assert Scaled(factor=3).factor == 3
    with pytest.raises(ParameterError, match="'factor'"):
        Scaled(factor="x")


def test_lists_take_part_in_arrows_on_both_sides(registry: Registry) -> None:
    a, b, c = Numbers(name="a"), Numbers(name="b"), AddOne(name="c")
    assert ([a, b] >> c) is c
    assert registry.edges == [("a", "c"), ("b", "c")]
    with pytest.raises(GraphError, match="Only steps can be connected, got 'a'"):
        ["a"] >> c  # type: ignore[operator]
    with pytest.raises(GraphError, match="Only steps can be connected, got 3"):
        a >> 3


def test_kinds_of_steps_know_what_they_are() -> None:
    assert [Numbers().is_generator, AddOne().is_generator] == [True, False]
    assert [Total().is_global, AddOne().is_global] == [True, False]


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("TextGeneration", "text_generation"),
        ("LLMJudge", "llm_judge"),
        ("UltraFeedback2", "ultra_feedback2"),
        ("step", "step"),
        ("HTMLToJSON", "html_to_json"),
    ],
)
def test_names_are_inferred_in_snake_case(class_name: str, expected: str) -> None:
    assert snake_case(class_name) == expected


def test_an_attribute_that_is_not_declared_is_refused_with_what_to_do() -> None:
    class Loads(AddOne):
        def load(self) -> None:
            self.model = 3

    with pytest.raises(ParameterError, match=r"'loads'.*declare it in the class, or name it `_model`"):
        Loads(name="loads").load()


def test_an_init_that_leaves_out_that_of_its_base_is_told_so() -> None:
    class Bare(AddOne):
        def __init__(self, by: int) -> None:
            self.by = by

    with pytest.raises(GraphError, match=r"Bare: its `__init__` must call .* declare `by: ...` in the class"):
        Bare(2)


def test_a_class_that_is_connected_is_told_to_be_made_a_step() -> None:
    with pytest.raises(GraphError, match=r"Make a step of it: `AddOne\(...\)`"):
        Numbers(pipeline=Registry()) >> AddOne


def test_a_function_that_routes_is_told_to_be_decorated(registry: Registry) -> None:
    def first(steps: list[str]) -> list[str]:
        return steps[:1]

    with pytest.raises(GraphError, match=r"got <function .*wants `@routing_batch_function\(\)` above it"):
        Numbers() >> first
    with pytest.raises(GraphError, match=r"Step 'step_2': batches are routed by .*, got <function"):
        Numbers().connect(AddOne(), routing_batch_function=first)  # type: ignore[arg-type]


def test_steps_and_models_have_a_logger_as_in_distilabel(caplog: pytest.LogCaptureFixture) -> None:
    class Own(AddOne):
        _logger: logging.Logger = PrivateAttr(default_factory=lambda: logging.getLogger("own"))

    class Set(AddOne):
        def load(self) -> None:
            self._logger = logging.getLogger("set")

    step, own, later = AddOne(name="add"), Own(), Set()
    later.load()
    for each in (copy.deepcopy(step), own, later, OpenAILLM(model="m")):
        each._logger.warning("said")
    assert [record.name for record in caplog.records] == [
        "distill_ray.add",
        "own",
        "set",
        "distill_ray.OpenAILLM",
    ]
    with pytest.raises(AttributeError, match="no attribute '_other'"):
        step._other  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("base", [AddOne, TextGeneration])
def test_a_class_that_a_function_defines_takes_nothing_of_the_function_along(base: type[Step]) -> None:
    class Size(Enum):
        SMALL = 1

    api_key = ["sk-secret"]
    open_file = (line for line in api_key)

    class Local(base):  # type: ignore[misc, valid-type]
        size: RuntimeParameter[Size]

    pickled = cloudpickle.dumps(Local)
    assert b"sk-secret" not in pickled
    assert pickle.loads(pickled).model_fields["size"].annotation.__name__ == "Size"
    assert next(open_file) == "sk-secret"
