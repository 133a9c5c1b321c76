from __future__ import annotations

from distill_ray.graph import Graph, mermaid
from distill_ray.steps import GlobalStep, KeepColumns, LoadDataFromDicts, StepInput
from distill_ray.types import StepOutput


class Total(GlobalStep):
    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


def graph() -> Graph:
    made = Graph()
    made.add(LoadDataFromDicts(name='say "hi"', data=[{"a": 1, "<b>": 2}]))
    made.add(KeepColumns(name="keep", columns=["a"], output_mappings={"a": "A"}))
    made.add(Total(name="total"))
    made.connect('say "hi"', "keep")
    made.connect("keep", "total")
    return made


def test_steps_are_shaped_by_their_kind_and_arrows_say_the_columns() -> None:
    assert mermaid(graph()) == (
        "flowchart LR\n"
        '    s0(["say &quot;hi&quot;<br/>LoadDataFromDicts"])\n'
        '    s1["keep<br/>KeepColumns"]\n'
        '    s2[["total<br/>Total"]]\n'
        '    s0 -->|"a, &lt;b&gt;"| s1\n'
        '    s1 -->|"A"| s2\n'
    )


def test_it_may_flow_downwards_and_without_columns() -> None:
    text = mermaid(graph(), top_to_bottom=True, show_edge_labels=False)
    assert text.startswith("flowchart TD\n")
    assert "    s0 --> s1\n    s1 --> s2\n" in text
