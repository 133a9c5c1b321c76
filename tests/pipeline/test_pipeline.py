"""A pipeline as users write it, run in this process. Where it runs, and Ray, are the integration suite's."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_ray.errors import GraphError, ParameterError
from distill_ray.models import LLM, ChatType, GenerateOutput
from distill_ray.pipeline import Pipeline
from distill_ray.steps import (
    GeneratorStep,
    GlobalStep,
    KeepColumns,
    LoadDataFromDicts,
    LoadDataFromFileSystem,
    RuntimeParameter,
    Step,
    StepInput,
    step,
)
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import GeneratorStepOutput, StepOutput


class Add(Step):
    amount: RuntimeParameter[int] = 1

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "n": row["n"] + self.amount} for row in inputs]


class Total(GlobalStep):
    def process(self, inputs: StepInput) -> StepOutput:
        yield [{"total": sum(row["n"] for row in inputs)}]


class Loud(LLM):
    """Answers in capitals."""

    @property
    def model_name(self) -> str:
        return "loud"

    def generate(  # type: ignore[override]
        self, inputs: list[ChatType], num_generations: int = 1, ending: str = ""
    ) -> list[GenerateOutput]:
        return [
            {
                "generations": [chat[-1]["content"].upper() + ending] * num_generations,
                "statistics": {"input_tokens": [2] * num_generations, "output_tokens": [3] * num_generations},
                "finish_reasons": ["stop"] * num_generations,
            }
            for chat in inputs
        ]


def run(pipeline: Pipeline, **arguments: Any) -> Any:
    return pipeline.run(engine="inline", **arguments)


def rows(distiset: Any, leaf: str = "default") -> list[dict[str, Any]]:
    return list(distiset[leaf]["train"].to_list())


def numbers(*values: int) -> list[dict[str, Any]]:
    return [{"n": value} for value in values]


def adding(amount: int = 1, **options: Any) -> Pipeline:
    with Pipeline(name="adding", **options) as pipeline:
        LoadDataFromDicts(name="load", data=numbers(1, 2)) >> Add(name="add", amount=amount)
    return pipeline


def test_steps_get_names_from_their_classes() -> None:
    with Pipeline(name="names") as pipeline:
        load = LoadDataFromDicts(data=numbers(1))
        first, second = Add(), Add()
        load >> [first, second]
    assert [load.name, first.name, second.name] == ["load_data_from_dicts_0", "add_0", "add_1"]
    assert list(pipeline.graph.steps) == ["load_data_from_dicts_0", "add_0", "add_1"]


def test_steps_may_be_given_their_pipeline_and_connected_by_method() -> None:
    pipeline = Pipeline(name="given")
    load = LoadDataFromDicts(data=numbers(1), pipeline=pipeline)
    left, right = Add(pipeline=pipeline), Add(amount=5, pipeline=pipeline)
    load.connect(left, right)
    assert rows(run(pipeline), "add_1") == numbers(6)


def test_pipelines_may_be_declared_inside_each_other() -> None:
    with Pipeline(name="outer") as outer:
        LoadDataFromDicts(data=numbers(1))
        with Pipeline(name="inner") as inner:
            Add()
        Add()
    assert list(outer.graph.steps) == ["load_data_from_dicts_0", "add_0"]
    assert list(inner.graph.steps) == ["add_0"]


def test_lists_of_steps_are_connected_both_ways() -> None:
    @step(inputs=["n"])
    def spread(inputs: StepInput, *others: StepInput) -> Iterator[Any]:
        yield [{"ns": [row["n"] for row in aligned]} for aligned in zip(inputs, *others, strict=True)]

    with Pipeline(name="lists") as pipeline:
        LoadDataFromDicts(data=numbers(1, 2)) >> [Add(amount=n) for n in (10, 20, 30)] >> spread()
    assert rows(run(pipeline)) == [{"ns": [11, 21, 31]}, {"ns": [12, 22, 32]}]


def test_predecessors_may_be_parameters_of_their_own_in_the_order_of_connection() -> None:
    class Minus(Step):
        def process(self, left: StepInput, right: StepInput) -> StepOutput:
            yield [{"n": a["n"] - b["n"]} for a, b in zip(left, right, strict=True)]

    with Pipeline(name="minus") as pipeline:
        load, ten, minus = LoadDataFromDicts(data=numbers(1)), Add(amount=10), Minus()
        load >> ten >> minus
        load >> minus
    assert rows(run(pipeline)) == numbers(10)


def test_what_is_defined_inside_a_function_runs() -> None:
    offset = 100

    class Local(GeneratorStep):
        def process(self, offset: int = 0) -> GeneratorStepOutput:
            yield numbers(*range(offset, 3)), True

    @step(inputs=["n"], outputs=["n"])
    def shift(inputs: StepInput) -> Iterator[Any]:
        yield [{"n": row["n"] + offset} for row in inputs]

    with Pipeline(name="local") as pipeline:
        Local() >> shift()
    assert rows(run(pipeline)) == numbers(100, 101, 102)


def test_a_single_leaf_is_called_default_and_several_by_their_names() -> None:
    assert list(run(adding())) == ["default"]
    with Pipeline(name="two") as pipeline:
        LoadDataFromDicts(data=numbers(1, 2)) >> [Add(name="add"), Total(name="total")]
    distiset = run(pipeline)
    assert set(distiset) == {"add", "total"}
    assert rows(distiset, "total") == [{"total": 3}]


def test_a_lone_generator_is_a_pipeline() -> None:
    with Pipeline(name="lone") as pipeline:
        LoadDataFromDicts(data=numbers(1))
    assert rows(run(pipeline)) == numbers(1)


def test_the_metadata_column_is_shown_only_where_asked_for() -> None:
    def asking(*, enable_metadata: bool) -> Pipeline:
        with Pipeline(name="meta", enable_metadata=enable_metadata) as pipeline:
            LoadDataFromDicts(data=[{"instruction": "hi"}]) >> TextGeneration(name="ask", llm=Loud())
        return pipeline

    plain = {"instruction": "hi", "generation": "HI", "model_name": "loud"}
    assert rows(run(asking(enable_metadata=False))) == [plain]
    (row,) = rows(run(asking(enable_metadata=True)))
    assert row.pop("distilabel_metadata")["statistics_ask"] == {"input_tokens": 2, "output_tokens": 3}
    assert row == plain


def test_the_report_counts_tokens_of_grouped_generations_too() -> None:
    with Pipeline(name="grouped") as pipeline:
        ask = TextGeneration(name="ask", llm=Loud(), num_generations=3, group_generations=True)
        LoadDataFromDicts(data=[{"instruction": "hi"}]) >> ask
    report = run(pipeline).report.steps["ask/answer"]
    assert (report.input_tokens, report.output_tokens) == (6, 9)


def test_nested_runtime_parameters_reach_the_model() -> None:
    with Pipeline(name="nested") as pipeline:
        LoadDataFromDicts(data=[{"instruction": "hi"}]) >> TextGeneration(name="ask", llm=Loud())
    given = {"ask": {"llm": {"generation_kwargs": {"ending": "!"}}}}
    assert rows(run(pipeline, parameters=given))[0]["generation"] == "HI!"
    assert rows(run(pipeline))[0]["generation"] == "HI"


def test_a_loaders_files_may_be_given_to_the_run_of_a_pipeline_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 4}\n', encoding="utf-8")
    with Pipeline() as pipeline:
        load = LoadDataFromFileSystem(name="load")  # type: ignore[call-arg]
        load >> Add()
    assert rows(run(pipeline, parameters={"load": {"data_files": str(path)}})) == numbers(5)
    with pytest.raises(ParameterError, match="Step 'load' lacks its runtime parameter 'data_files'"):
        run(pipeline)


def test_a_pipeline_without_a_name_is_named_after_its_steps() -> None:
    def unnamed(amount: int) -> Pipeline:
        with Pipeline() as pipeline:
            LoadDataFromDicts(data=numbers(1)) >> Add(amount=amount)
        return pipeline

    assert unnamed(1).name == unnamed(1).name != unnamed(2).name


def test_signatures_tell_names_and_connections_from_what_is_computed() -> None:
    one, other = adding(amount=1), adding(amount=2)
    assert one.signature == other.signature
    assert one.aggregated_steps_signature != other.aggregated_steps_signature
    with Pipeline(name="renamed") as renamed:
        LoadDataFromDicts(name="load", data=numbers(1, 2)) >> Add(name="plus", amount=1)
    assert renamed.signature != one.signature
    assert renamed.aggregated_steps_signature == one.aggregated_steps_signature


@pytest.mark.parametrize("as_url", [False, True])
def test_the_cache_lies_where_it_was_said(tmp_path: Path, cache_root: Path, *, as_url: bool) -> None:
    root = tmp_path / "elsewhere"
    assert rows(run(adding(cache_dir=root.as_uri() if as_url else root))) == numbers(2, 3)
    assert (root / "format.json").exists()
    assert not cache_root.exists()


# plan(), and what a second run does


def decisions(pipeline: Pipeline, **arguments: Any) -> dict[str, str]:
    return {each.name: each.decision for each in pipeline.plan(**arguments).steps}


def test_plan_and_report_say_the_same() -> None:
    for pipeline, arguments in (
        (adding(), {}),
        (adding(), {}),
        (adding(amount=2), {}),
        (adding(), {"use_cache": False}),
        (adding(), {"parameters": {"add": {"amount": 9}}}),
    ):
        planned = pipeline.plan(**arguments)
        report = run(pipeline, **arguments).report
        assert {s.name: (s.decision, s.reason) for s in planned.steps} == {
            name: (s.decision, s.reason) for name, s in report.steps.items()
        }


def test_the_second_run_is_a_hit_also_with_parameters_and_a_dataset() -> None:
    with Pipeline(name="given") as pipeline:
        Add(name="add")
    arguments: dict[str, Any] = {"dataset": numbers(1, 2), "parameters": {"add": {"amount": 3}}}
    assert decisions(pipeline, **arguments) == {"dataset": "compute", "add": "compute"}
    assert rows(run(pipeline, **arguments)) == numbers(4, 5)
    assert decisions(pipeline, **arguments) == {"dataset": "not needed", "add": "hit"}
    assert decisions(pipeline, dataset=numbers(1, 2)) == {"dataset": "hit", "add": "compute"}
    assert decisions(pipeline, dataset=numbers(7)) == {"dataset": "compute", "add": "compute"}


def test_a_changed_parameter_in_the_middle_gives_the_new_rows() -> None:
    def chain(amount: int) -> Pipeline:
        with Pipeline(name="chain") as pipeline:
            LoadDataFromDicts(data=numbers(1)) >> Add(name="a", amount=amount) >> Add(name="b")
        return pipeline

    assert rows(run(chain(1))) == numbers(3)
    assert decisions(chain(5)) == {"load_data_from_dicts_0": "hit", "a": "compute", "b": "resume"}
    assert rows(run(chain(5))) == numbers(7)
    assert decisions(chain(1))["b"] == "hit"


def test_a_dry_run_neither_reads_nor_writes_the_cache(cache_root: Path) -> None:
    pipeline = adding()
    assert rows(pipeline.dry_run(engine="inline")) == numbers(2)
    assert rows(pipeline.dry_run(batch_size=2, engine="inline")) == numbers(2, 3)
    given = {"add": {"amount": 7}}
    assert rows(pipeline.dry_run(parameters=given, engine="inline")) == numbers(8)
    with Pipeline(name="given") as pipeline:
        Add()
    assert rows(pipeline.dry_run(dataset=numbers(5, 6), engine="inline")) == numbers(6)
    assert not cache_root.exists()


def test_a_dry_run_leaves_the_pipeline_as_it_was() -> None:
    pipeline = adding()
    pipeline.dry_run(batch_size=1, engine="inline")
    assert pipeline.graph.steps["load"].batch_size == 50  # type: ignore[attr-defined]


# Drawing


def test_a_drawing_is_mermaid_text_that_may_go_to_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = adding().draw(tmp_path / "graph.mmd", top_to_bottom=True)
    assert text.startswith("flowchart TD\n")
    assert (tmp_path / "graph.mmd").read_text(encoding="utf-8") == text
    assert capsys.readouterr().out == ""


def test_on_a_terminal_a_drawing_is_a_picture_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    adding().draw()
    assert terminal.getvalue() == "[load] LoadDataFromDicts\n    load -> [add] Add\n"


# Mistakes


def test_a_step_of_another_pipeline_or_of_none_cannot_be_connected() -> None:
    outside = Add(name="outside")
    with Pipeline(name="one"):
        foreign = Add(name="foreign")
    with Pipeline(name="two") as pipeline:
        load = LoadDataFromDicts(name="load", data=numbers(1))
        Add(name="foreign")
        with pytest.raises(GraphError, match=r"Step 'outside' is not in Pipeline\(name='two'"):
            load >> outside
        with pytest.raises(GraphError, match=r"Step 'foreign' is not in Pipeline\(name='two'"):
            load >> foreign
    assert pipeline.graph.successors("load") == ()


def test_rows_for_a_pipeline_that_has_its_own_are_an_error() -> None:
    with pytest.raises(GraphError, match="every step of the pipeline has its rows already"):
        run(adding(), dataset=numbers(1))


def test_an_unknown_engine_is_an_error() -> None:
    with Pipeline(name="engines") as pipeline:
        LoadDataFromDicts(data=[{"n": 1}])
    for _ in range(2):  # the second time nothing would have to run
        with pytest.raises(ParameterError, match="no engine 'local': choose 'ray' or 'inline'"):
            pipeline.run(engine="local")  # type: ignore[arg-type]
        pipeline.run(engine="inline")


def test_a_drawing_under_the_name_of_a_picture_is_refused(tmp_path: Path) -> None:
    with Pipeline(name="drawn") as pipeline:
        LoadDataFromDicts(data=[{"n": 1}])
    with pytest.raises(ParameterError, match=r"writes Mermaid text, no picture: name '.*x.PNG' with .mmd"):
        pipeline.draw(tmp_path / "x.PNG")
    assert not list(tmp_path.glob("*.PNG"))


def test_a_plan_that_is_printed_does_not_show_the_data() -> None:
    with Pipeline(name="printed") as pipeline:
        LoadDataFromDicts(name="load", data=[{"n": "some value"}])
    text = repr(pipeline.plan())
    assert "decision='compute'" in text
    assert "some value" not in text


MISTAKES = """
import sys

from distill_ray.errors import DistillRayError
from distill_ray.pipeline import Pipeline
from distill_ray.steps import GeneratorStep, KeepColumns, LoadDataFromDicts, RuntimeParameter, Step


class Same(Step):
    must: RuntimeParameter[int]

    def process(self, inputs):
        yield inputs


class Unfinished(Step):
    pass


class Idle(GeneratorStep):
    def process(self):
        yield [], True


def load(name="load"):
    return LoadDataFromDicts(name=name, data=[{"n": 1}])


def keep(name="keep", column="n", **parameters):
    return KeepColumns(name=name, columns=[column], **parameters)


def cycle():
    first, second, third = keep("first"), keep("second"), keep("third")
    load() >> first >> second >> third >> first


MADE = {
    "cycle": (cycle, "'third' to 'first' closes a cycle"),
    "missing column": (lambda: load() >> keep(column="m"), "'keep' needs the column 'm'"),
    "unknown parameter": (lambda: keep(colums=["n"]), "'keep' (KeepColumns): there is no parameter 'colums'"),
    "two of one name": (lambda: [keep(), keep()], "are named 'keep'"),
    "unconnected": (lambda: [load() >> keep(), keep("other")], "'other' is given no rows"),
    "unconnected generator": (lambda: [load() >> keep(), load("other")], "'other' is connected to nothing"),
    "no process": (lambda: load() >> Unfinished(name="bare"), "'bare' (Unfinished) has no `process`"),
    "no offset": (lambda: Idle(name="idle"), "'idle': its `process` does not take `offset`"),
    "generator downstream": (lambda: load() >> load("second"), "step 'second', a generator step"),
    "nothing makes rows": (lambda: keep(), "'keep' is given no rows"),
    "outside": (lambda: load() >> OUTSIDE, "'outside' is not in Pipeline"),
    "twice": (lambda: [load() >> (one := keep()), PIPELINE[-1].graph.connect("load", "keep")], "twice"),
    "nothing": (lambda: None, "has no steps"),
    "too many inputs": (lambda: [load(), load("b")] >> Same(name="same", must=1), "'same' follows 2 steps"),
    "not given": (lambda: load() >> Same(name="same"), "'same' lacks its runtime parameter 'must'"),
    "no step": (lambda: load() >> "keep", "Only steps can be connected, got 'keep'"),
}
OUTSIDE = keep("outside")
PIPELINE = []
for mistake, (make, message) in MADE.items():
    try:
        with Pipeline(name="mistaken") as pipeline:
            PIPELINE.append(pipeline)
            make()
        pipeline.run()
    except DistillRayError as error:
        assert message in str(error), (mistake, str(error))
    else:
        raise AssertionError(mistake)
for run in (pipeline.run, pipeline.plan, pipeline.dry_run):
    try:
        run(parameters={"keep": {"nothing": 1}})
    except DistillRayError as error:
        assert "'keep'" in str(error), str(error)
heavy = [name for name in ("ray", "gcsfs") if name in sys.modules]
assert not heavy, heavy
print(len(MADE), "mistakes")
"""


def test_every_mistake_is_one_error_that_names_the_step_before_ray_is_imported(cache_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISTAKES], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "16 mistakes\n"
    assert not cache_root.exists()


def test_a_complete_hit_does_not_import_ray() -> None:
    script = (
        "import sys\n"
        "from distill_ray.pipeline import Pipeline\n"
        "from distill_ray.steps import LoadDataFromDicts\n"
        "with Pipeline(name='hit') as pipeline:\n"
        "    LoadDataFromDicts(data=[{'n': 1}])\n"
        "print(pipeline.run(engine=sys.argv[1])['default']['train'].to_list(), 'ray' in sys.modules)\n"
    )
    for engine in ("inline", "ray"):
        done = subprocess.run(
            [sys.executable, "-c", script, engine], capture_output=True, text=True, check=True, timeout=100
        )
        assert done.stdout == "[{'n': 1}] False\n"


def test_columns_that_are_kept_are_all_that_is_left() -> None:
    with Pipeline(name="keep") as pipeline:
        LoadDataFromDicts(data=[{"a": 1, "b": 2, "c": 3}]) >> KeepColumns(columns=["c", "a"])
    (row,) = rows(run(pipeline))
    assert list(row.items()) == [("c", 3), ("a", 1)]
