"""An explanation as text: what is known, what it cost, what is only bounded."""

from __future__ import annotations

from distill_ray.explain.difference import CodePiece
from distill_ray.explain.explanation import DataChange, Explanation, Reuse, StepExplanation
from distill_ray.explain.reason import Reason
from distill_ray.explain.row_changes import RowChanges
from distill_ray.observe.explanation_text import explanation_text


def text_of(*steps: StepExplanation) -> list[str]:
    return explanation_text(Explanation("answers", steps)).splitlines()


def with_reuse(reuse: Reuse, decision: str = "resume") -> list[str]:
    return text_of(StepExplanation("ask", decision, "why", (), reuse=reuse))


def test_a_hit_is_what_it_cost() -> None:
    reuse = Reuse("exact", rows=1200, seconds=5400, input_tokens=10_000, output_tokens=2_000)
    assert with_reuse(reuse, "hit") == [
        "ask: hit",
        "  why",
        "  to reuse: 1,200 rows, which took 1.5 h of computing and 10,000 tokens read and 2,000 written",
    ]


def test_what_is_only_bounded_says_so() -> None:
    at_most = with_reuse(Reuse("at most", rows=7, input_rows=20, seconds=90))
    assert at_most[-2:] == [
        "  to reuse: at most 7 rows, which took 1.5 min of computing",
        "  to compute: not known before the run, of 20 input rows",
    ]
    at_least = with_reuse(Reuse("at least", rows=7, input_rows=20, input_rows_to_compute=13, seconds=9))
    assert at_least[-2:] == [
        "  to reuse: at least 7 rows, which took 9.0 s of computing",
        "  to compute: at most 13 of 20 input rows",
    ]


def test_a_step_that_is_not_needed_reuses_nothing() -> None:
    assert with_reuse(Reuse("unknown"), "not needed") == ["ask: not needed", "  why"]


def test_reasons_data_code_and_blind_spots_each_have_their_lines() -> None:
    rows = RowChanges(30, 31, added=(30,), changed=tuple((n, n) for n in range(25)))
    lines = text_of(
        StepExplanation(
            "load",
            "compute",
            "why",
            (Reason("data", "30 -> 31 rows"), Reason("code", "Load")),
            compared_with="run r of this pipeline",
            code=(CodePiece("Load", "a\nb", "a\nc"),),
            data=DataChange(rows, looked_at=20, columns={"text": 18, "n": 2}),
            reuse=Reuse("exact", input_rows=10, input_rows_to_compute=10),
            blind_spots=("'Load' opens a file.",),
        )
    )
    assert lines == [
        "load: compute",
        "  DATA: 30 -> 31 rows",
        "  CODE: Load",
        "  compared with run r of this pipeline",
        "  rows: +1, 25 changed of 30 rows; changed columns, in the 20 that were looked at: text (18), n (2)",
        "    --- Load (before)",
        "    +++ Load (now)",
        "    @@ -1,2 +1,2 @@",
        "     a",
        "    -b",
        "    +c",
        "  to reuse: 0 rows",
        "  to compute: 10 of 10 input rows",
        "  blind spot: 'Load' opens a file.",
    ]
