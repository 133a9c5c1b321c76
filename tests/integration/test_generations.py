"""What a model is asked, and what is found of what it was asked before: answers are paid for once.

The model here writes every call to a file, so that the tests count real calls, and gives another answer each
time, so that they tell a stored one from a new one.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from distill_ray.distiset import Distiset
from distill_ray.errors import StepError
from distill_ray.models import LLM, ChatType, GenerateOutput, OpenAILLM
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts, StepColumns, StepInput, StepOutput
from distill_ray.steps.tasks import Task, TextGeneration
from distill_ray.types import METADATA, Row
from tests.models.conftest import faulty_server, model_server, weights  # noqa: F401 - fixtures
from tests.models.model_servers import FaultyServer

_numbers = itertools.count()


class Counted(LLM):
    """Answers with as many words as the request has, cut at the limit, and the number of the answer."""

    version = "1"
    exclude_from_signature: frozenset[str] = frozenset({"log", "fails"})

    log: str
    fails: bool = False
    name: str = "counted"

    @property
    def model_name(self) -> str:
        return self.name

    def generate(  # type: ignore[override]
        self,
        inputs: list[ChatType],
        num_generations: int = 1,
        max_new_tokens: int = 10,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> list[GenerateOutput]:
        asked = [chat[-1]["content"] for chat in inputs]
        if self.fails and "bad" in asked:
            raise RuntimeError("the server is down")
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.write(json.dumps([asked, num_generations]) + "\n")
        return [self._answer(text, num_generations, max_new_tokens, seed) for text in asked]

    def _answer(self, text: str, count: int, limit: int, seed: int | None) -> GenerateOutput:
        tokens = len(text.split())
        tags = [next(_numbers) if seed is None else f"{seed + k}th" for k in range(count)]
        return {
            "generations": [" ".join([*text.split()[:limit], str(tag)]) for tag in tags],
            "statistics": {"input_tokens": [tokens] * count, "output_tokens": [min(tokens, limit)] * count},
            "finish_reasons": ["stop" if tokens < limit else "length"] * count,
        }


class Shout(TextGeneration):
    """Another parser and another output column."""

    @property
    def outputs(self) -> StepColumns:
        return ["shouted", "model_name"]

    def format_output(self, output: str | None, input: Row) -> Row:  # noqa: A002 - distilabel's name
        return {"shouted": (output or "").upper()}


class Concatenated(TextGeneration):
    """Another prompt builder that comes to the same request."""

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 - distilabel's name
        return [{"role": "user", "content": "".join(list(input["instruction"]))}]


class OneStep(TextGeneration):
    """The same as one step: its class has a `process` of its own."""

    def process(self, inputs: StepInput) -> StepOutput:
        yield from super().process(inputs)


class Lab:
    """Runs a task on rows, and counts the samples that the model was asked for."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.log = folder / "calls.log"

    def llm(self, **kwargs: Any) -> Counted:
        fields = {name: kwargs.pop(name) for name in ("fails", "name") if name in kwargs}
        return Counted(log=str(self.log), generation_kwargs=kwargs, **fields)

    def run(
        self, *tasks: Task, rows: list[Any], pipeline: str = "lab", **options: Any
    ) -> tuple[Distiset, int]:
        """Return what the tasks gave, each on the loader's rows, and how many samples the model made."""
        data = [row if isinstance(row, dict) else {"instruction": row, "id": n} for n, row in enumerate(rows)]
        with Pipeline(name=pipeline, enable_metadata=True) as made:
            load = LoadDataFromDicts(name="load", data=data)
            for task in tasks:
                made.add_step(task)
                load >> task
        self.log.write_text("", encoding="utf-8")
        distiset = made.run(engine=self.engine, **options)
        return distiset, sum(len(asked) * count for asked, count in self.calls())

    def calls(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def task(
        self, name: str = "t", kind: Any = TextGeneration, llm: LLM | None = None, **fields: Any
    ) -> Task:
        made: Task = kind(name=name, llm=llm or self.llm(), input_batch_size=4, **fields)
        return made


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab("inline", tmp_path)


TEXTS = [f"say {n} words" for n in range(6)]


def rows_of(distiset: Distiset, leaf: str = "default") -> list[Row]:
    return distiset[leaf]["train"].to_list()


def column(distiset: Distiset, name: str = "generation", leaf: str = "default") -> list[Any]:
    return [row[name] for row in rows_of(distiset, leaf)]


def test_a_second_run_asks_nothing(lab: Lab) -> None:
    first, asked = lab.run(lab.task(), rows=TEXTS)
    assert asked == 6
    second, asked = lab.run(lab.task(), rows=TEXTS)
    assert asked == 0
    assert rows_of(second) == rows_of(first)


@pytest.mark.parametrize(
    "edit",
    [
        {"template": "{{ instruction | trim }}"},
        {"kind": Concatenated},
        {"system_prompt": ""},
        {"add_raw_input": False},
        {"group_generations": True},
        {"input_batch_size": 5},
        {"name": "renamed"},
        {"output_mappings": {"generation": "answer"}},
    ],
)
def test_an_edit_that_asks_for_the_same_asks_nothing(lab: Lab, edit: dict[str, Any]) -> None:
    first, _ = lab.run(lab.task(), rows=TEXTS)
    batch_size = edit.pop("input_batch_size", 4)
    task = lab.task(**edit)
    task.input_batch_size = batch_size
    second, asked = lab.run(task, rows=TEXTS)
    assert asked == 0
    name = (edit.get("output_mappings") or {}).get("generation", "generation")
    answers = column(second, name)
    assert [each[0] if isinstance(each, list) else each for each in answers] == column(first)


def test_another_parser_reads_the_stored_answers(lab: Lab) -> None:
    first, _ = lab.run(lab.task(), rows=TEXTS)
    second, asked = lab.run(lab.task(kind=Shout), rows=TEXTS)
    assert asked == 0
    assert column(second, "shouted") == [answer.upper() for answer in column(first)]
    assert "generation" not in rows_of(second)[0]


def test_a_changed_request_is_asked(lab: Lab) -> None:
    lab.run(lab.task(), rows=TEXTS)
    template = "{{ instruction if instruction != 'say 3 words' else 'say nothing' }}"
    _, asked = lab.run(lab.task(template=template), rows=TEXTS)
    assert asked == 1
    assert lab.calls() == [[["say nothing"], 1]]


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"seed": 1}, {"name": "another"}])
def test_a_changed_model_is_asked_for_everything(lab: Lab, change: dict[str, Any]) -> None:
    lab.run(lab.task(), rows=TEXTS)
    _, asked = lab.run(lab.task(llm=lab.llm(**change)), rows=TEXTS)
    assert asked == 6


def test_another_pipelines_task_shares_the_answers(lab: Lab) -> None:
    first, _ = lab.run(lab.task(), rows=TEXTS)
    rows = [{"prompt": text, "other": True} for text in reversed(TEXTS)]
    task = lab.task("theirs", template="{{ prompt }}", columns="prompt")
    second, asked = lab.run(task, rows=rows, pipeline="theirs")
    assert asked == 0
    assert column(second) == column(first)[::-1]


def test_more_generations_are_asked_for_on_top(lab: Lab) -> None:
    first, _ = lab.run(lab.task(), rows=TEXTS)
    second, asked = lab.run(lab.task(num_generations=3), rows=TEXTS)
    assert asked == 12
    assert {count for _, count in lab.calls()} == {2}
    assert column(second)[::3] == column(first)
    assert len(set(column(second))) == 18
    third, asked = lab.run(lab.task(num_generations=2), rows=TEXTS)
    assert asked == 0
    assert column(third) == [each for n, each in enumerate(column(second)) if n % 3 < 2]


def test_with_a_seed_more_generations_are_those_that_asking_for_all_at_once_gives(lab: Lab) -> None:
    lab.run(lab.task(llm=lab.llm(seed=3)), rows=TEXTS)
    more, asked = lab.run(lab.task(llm=lab.llm(seed=3), num_generations=3), rows=TEXTS)
    assert asked == 12
    afresh, asked = lab.run(lab.task(llm=lab.llm(seed=3), num_generations=3), rows=TEXTS, use_cache=False)
    assert asked == 18
    assert rows_of(more) == rows_of(afresh)


def test_samples_and_rows_of_a_batch_are_one_call(lab: Lab) -> None:
    lab.run(lab.task(num_generations=2), rows=TEXTS)
    assert lab.calls() == [[TEXTS[:4], 2], [TEXTS[4:], 2]]


WORDS = [" ".join(["word"] * n) for n in (2, 5, 8, 12)]


def test_a_higher_limit_is_asked_for_answers_that_were_cut(lab: Lab) -> None:
    first, _ = lab.run(lab.task(llm=lab.llm(max_new_tokens=6)), rows=WORDS)
    second, asked = lab.run(lab.task(llm=lab.llm(max_new_tokens=10)), rows=WORDS)
    assert [request for requests, _ in lab.calls() for request in requests] == WORDS[2:]
    assert column(second)[:2] == column(first)[:2]
    _, asked = lab.run(lab.task(llm=lab.llm()), rows=WORDS)  # 10 is the model's own limit
    assert asked == 0


def test_a_lower_limit_serves_the_answers_that_fit(lab: Lab) -> None:
    first, _ = lab.run(lab.task(llm=lab.llm(max_new_tokens=10)), rows=WORDS)
    second, _ = lab.run(lab.task(llm=lab.llm(max_new_tokens=6)), rows=WORDS)
    assert [request for requests, _ in lab.calls() for request in requests] == WORDS[2:]
    assert column(second)[:2] == column(first)[:2]
    assert [len(answer.split()) for answer in column(second)] == [3, 6, 7, 7]
    third, asked = lab.run(lab.task(llm=lab.llm(max_new_tokens=10)), rows=WORDS)
    assert asked == 0
    assert rows_of(third) == rows_of(first)


def test_two_limits_in_one_pipeline_keep_to_theirs(lab: Lab) -> None:
    low, high = (lab.task(name, llm=lab.llm(max_new_tokens=n)) for name, n in (("low", 3), ("high", 20)))
    made, _ = lab.run(low, high, rows=WORDS)
    assert [len(answer.split()) for answer in column(made, leaf="low")] == [3, 4, 4, 4]
    assert [len(answer.split()) for answer in column(made, leaf="high")] == [3, 6, 9, 13]


def test_equal_rows_keep_answers_of_their_own(lab: Lab) -> None:
    first, asked = lab.run(lab.task(), rows=["same"] * 3)
    assert asked == 3
    assert len(set(column(first))) == 3
    second, asked = lab.run(lab.task(template="{{ instruction | trim }}"), rows=["same"] * 4)
    assert asked == 1
    assert column(second)[:3] == column(first)


def test_equal_tasks_keep_answers_of_their_own(lab: Lab) -> None:
    one, _ = lab.run(lab.task("a"), rows=TEXTS)
    two, asked = lab.run(lab.task("a"), lab.task("b"), rows=TEXTS)
    assert asked == 6
    assert column(two, leaf="a") == column(one)
    assert not set(column(two, leaf="a")) & set(column(two, leaf="b"))
    edited = [lab.task(name, template="{{ instruction | trim }}") for name in "ab"]
    three, asked = lab.run(*edited, rows=TEXTS)
    assert asked == 0
    for leaf in "ab":
        assert column(three, leaf=leaf) == column(two, leaf=leaf)


def test_different_tasks_of_a_pipeline_share_stored_answers(lab: Lab) -> None:
    one, _ = lab.run(lab.task("a"), rows=TEXTS)
    two, asked = lab.run(lab.task("a"), lab.task("b", kind=Shout), rows=TEXTS)
    assert asked == 0
    assert column(two, "shouted", leaf="b") == [answer.upper() for answer in column(one)]


def test_different_tasks_of_a_pipeline_share_them_too_where_both_run(lab: Lab) -> None:
    one, _ = lab.run(lab.task("a"), rows=TEXTS)
    template = "{{ instruction | trim }}"
    edited = lab.task("a", template=template), lab.task("b", kind=Shout, template=template)
    two, asked = lab.run(*edited, rows=TEXTS)
    assert asked == 0
    assert column(two, leaf="a") == column(one)
    assert column(two, "shouted", leaf="b") == [answer.upper() for answer in column(one)]


def test_other_columns_of_the_rows_cost_nothing(lab: Lab) -> None:
    """Neither an answer nor a reading: what the task gave is put together with the new columns."""
    first, _ = lab.run(lab.task(num_generations=2), rows=[{"instruction": text} for text in TEXTS])
    for note in "ab":  # twice: what was put together is found again too
        rows = [{"note": note, "instruction": text, METADATA: {"by": note}} for text in TEXTS[::-1]]
        second, asked = lab.run(lab.task(num_generations=2), rows=rows)
        assert asked == 0
        assert second.report.steps["t"].rows_computed == 0
        assert column(second)[::2] == column(first)[::2][::-1]
        assert set(column(second, "note")) == {note}
        assert rows_of(second)[0][METADATA] == {"by": note, **rows_of(first)[-2][METADATA]}


def test_a_renamed_task_has_its_new_name_in_the_metadata(lab: Lab) -> None:
    lab.run(lab.task("old"), rows=TEXTS)
    renamed, asked = lab.run(lab.task("new"), rows=TEXTS)
    assert asked == 0
    assert set(rows_of(renamed)[0][METADATA]) == {"raw_output_new", "raw_input_new", "statistics_new"}


def test_a_task_that_is_not_to_use_the_cache_asks_again(lab: Lab) -> None:
    first, _ = lab.run(lab.task(), rows=TEXTS)
    second, asked = lab.run(lab.task(use_cache=False), rows=TEXTS)
    assert asked == 6
    assert not set(column(first)) & set(column(second))


def test_tokens_are_counted_once_and_only_where_they_were_spent(lab: Lab) -> None:
    made, _ = lab.run(lab.task(num_generations=2), rows=["a b c"])
    steps = made.report.steps
    spent = {name: (step.input_tokens, step.output_tokens) for name, step in steps.items()}
    assert spent == {"load": (0, 0), "t/request": (0, 0), "t/answer": (6, 6), "t": (0, 0)}
    found, _ = lab.run(lab.task("other", num_generations=2), rows=["a b c"])
    assert sum(step.output_tokens for step in found.report.steps.values()) == 0


@pytest.mark.parametrize("options", [{}, {"group_generations": True}, {"add_raw_input": False}])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "mappings",
    [
        {},
        {"input_mappings": {"instruction": "generation"}},
        {"input_mappings": {"instruction": "question"}, "output_mappings": {"generation": "question"}},
        {"output_mappings": {"generation": "instruction", "model_name": "by"}},
        {"input_mappings": {"instruction": "question"}, "output_mappings": {"generation": "instruction"}},
    ],
)
def test_the_rows_are_those_of_the_task_as_one_step(
    lab: Lab, options: dict[str, Any], count: int, mappings: dict[str, Any]
) -> None:
    rows: list[Row] = [
        {"id": n, "instruction": text, "question": f"{text}?", "more": {"x": [n]}}
        for n, text in enumerate(TEXTS)
    ]
    if "output_mappings" not in mappings:
        rows = [{"generation": f"say g{n}", **row} for n, row in enumerate(rows)]
    rows[2][METADATA] = {"raw_output_before": "x"}
    fields = {"num_generations": count, **options, **mappings}
    parts, whole = (lab.task(kind=kind, llm=lab.llm(seed=1), **fields) for kind in (TextGeneration, OneStep))
    in_parts, _ = lab.run(parts, rows=rows)
    as_one, asked = lab.run(whole, rows=rows)
    assert asked == len(rows) * count  # one step finds no answers, and keeps none for others
    assert [list(row.items()) for row in rows_of(in_parts)] == [list(row.items()) for row in rows_of(as_one)]


def test_an_output_under_another_name_leaves_the_column_of_its_own_name_alone(lab: Lab) -> None:
    rows = [{"instruction": "say it", "generation": "mine"}]
    made, _ = lab.run(lab.task(output_mappings={"generation": "answer"}), rows=rows)
    (row,) = rows_of(made)
    assert row["generation"] == "mine"
    assert row["answer"].startswith("say it")


def test_a_run_s_parameters_reach_all_parts(lab: Lab) -> None:
    llm = {"generation_kwargs": {"max_new_tokens": 2}}
    parameters = {"t": {"template": "{{ instruction }} now", "num_generations": 2, "llm": llm}}
    made, asked = lab.run(lab.task(), rows=["say it"], parameters=parameters)
    assert asked == 2
    assert lab.calls() == [[["say it now"], 2]]
    assert [len(answer.split()) for answer in column(made)] == [3, 3]


def test_the_users_pipeline_shows_its_own_steps(lab: Lab) -> None:
    with Pipeline(name="own") as pipeline:
        LoadDataFromDicts(name="load", data=[{"instruction": "a"}]) >> lab.task()
    signature = pipeline.signature, pipeline.aggregated_steps_signature
    plan = pipeline.plan()
    assert [step.name for step in plan.steps] == ["load", "t/request", "t/answer", "t"]
    assert (plan.signature, plan.aggregated) == signature
    assert list(pipeline.graph.steps) == ["load", "t"]
    assert "request" not in pipeline.draw()
    assert [step["name"] for step in pipeline.dump()["pipeline"]["steps"]] == ["load", "t"]


def test_a_row_that_fails_follows_on_error_and_is_tried_again(lab: Lab) -> None:
    texts = ["one", "bad", "two"]
    with pytest.raises(StepError, match=r"Step 't/answer'.*the server is down"):
        lab.run(lab.task(llm=lab.llm(fails=True)), rows=texts)
    skipped, _ = lab.run(lab.task(llm=lab.llm(fails=True), on_error="skip"), rows=texts)
    assert column(skipped, "instruction") == ["one", "two"]
    nulled, _ = lab.run(lab.task(llm=lab.llm(fails=True), on_error="null", num_generations=2), rows=texts)
    assert [(row["instruction"], row["generation"] is None) for row in rows_of(nulled)] == [
        ("one", False),
        ("one", False),
        ("bad", True),
        ("two", False),
        ("two", False),
    ]
    assert [column(nulled)[0], column(nulled)[3]] == column(
        skipped
    )  # and the first samples are those of the run before
    mended, _ = lab.run(lab.task(num_generations=2), rows=texts)
    assert {request for requests, _ in lab.calls() for request in requests} == {"bad"}
    assert column(mended)[:2] + column(mended)[4:] == column(nulled)[:2] + column(nulled)[3:]


def test_a_row_that_cannot_be_rendered_follows_on_error(lab: Lab) -> None:
    rows = [{"instruction": "fine"}, {"instruction": 5}, {"instruction": "good"}]
    with pytest.raises(StepError, match=r"Step 't/request'.*`instruction` must be a text, got 5"):
        lab.run(lab.task(num_generations=2), rows=rows)
    made, asked = lab.run(lab.task(num_generations=2, on_error="skip"), rows=rows)
    assert asked == 4
    assert column(made, "instruction") == ["fine", "fine", "good", "good"]


def test_a_column_that_a_task_does_not_declare_is_named(lab: Lab) -> None:
    class Curious(TextGeneration):
        def format_output(self, output: str | None, input: Row) -> Row:  # noqa: A002 - distilabel's name
            return {"generation": input["id"]}

    with pytest.raises(StepError, match="it reads the column 'id', which its `inputs` does not declare"):
        lab.run(lab.task(kind=Curious), rows=TEXTS)


def test_an_api_is_asked_for_the_samples_that_are_missing(
    lab: Lab,
    faulty_server: FaultyServer,  # noqa: F811
) -> None:
    def asked(template: str = "{{ instruction }}", salt: str | None = None, **fields: Any) -> list[int]:
        """How many samples each request asked for."""
        llm = OpenAILLM(model="m", base_url=faulty_server.url, api_key="sk-secret", salt=salt)
        faulty_server.requests.clear()
        lab.run(lab.task(llm=llm, template=template, **fields), rows=["a", "b"])
        return [request.get("n", 1) for request in faulty_server.requests]

    assert asked(num_generations=2) == [2, 2]
    assert asked("{{ instruction | trim }}", num_generations=2) == []
    assert asked(num_generations=3) == [1, 1]
    assert asked(num_generations=3, salt="another model since May") == [3, 3]


@pytest.mark.model
def test_a_real_model_is_asked_again_where_its_answer_was_cut(
    lab: Lab,
    model_server: str,  # noqa: F811
) -> None:
    def run(limit: int) -> tuple[list[str], int]:
        kwargs = {"temperature": 0.0, "max_new_tokens": limit}
        llm = OpenAILLM(model="m", base_url=model_server, api_key="none", generation_kwargs=kwargs)
        made, _ = lab.run(lab.task(llm=llm), rows=["Say hi.", "Tell me a very long story."])
        return column(made), made.report.steps["t/answer"].rows_computed

    (greeting, beginning), asked = run(50)
    assert asked == 2
    (again, longer), asked = run(60)
    assert asked == 1
    assert again == greeting
    assert longer.startswith(beginning[:20])
    assert len(longer) > len(beginning)
    assert run(50) == ([greeting, beginning], 0)
