"""Progress as a table on a terminal, drawn by rich into a file that it takes for one."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from distill_ray.events import (
    DamageFound,
    ReplicaUp,
    RunFinished,
    RunStarted,
    RunStopping,
    RunUnguarded,
    StepFinished,
)
from distill_ray.observe.live import LiveProgress
from tests.observe.events_of_a_run import advanced, loading, started, working


def terminal(width: int = 120, **options: object) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=width, **options), stream  # type: ignore[arg-type]


def table(width: int) -> list[str]:
    """The table in the middle of a run, as text."""
    console, _ = terminal(width)
    progress = LiveProgress(console)
    progress._run.listen(started(loading("hit", rows_known=4000), working()))
    progress._run.listen(ReplicaUp("work", 0))
    progress._run.listen(advanced("work", 250, 250, reused=50))
    with console.capture() as capture:
        console.print(progress)
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).splitlines()


def test_a_wide_terminal_shows_everything() -> None:
    title, header, first, second = (line.rstrip() for line in table(120))
    assert title == "pipeline 'p', 0 s, cache /root"
    assert header.split() == [
        "step", "decision", "state", "rows", "rows/s", "reused", "computed", "replicas", "reason",
    ]  # fmt: skip
    assert first.split()[:4] == ["load", "hit", "done", "4,000"]
    assert second.split()[:3] == ["work", "compute", "running"]
    assert "250 / 4,000" in second
    assert second.split()[6:10] == ["50", "200", "1", "/"]
    assert second.endswith("nothing is stored")


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (80, "step decision state rows rows/s reused computed replicas"),
        (65, "step decision state rows rows/s reused computed"),
        (50, "step decision state rows rows/s"),
        (40, "step decision state rows"),
        (30, "step state rows"),
        (20, "step rows"),
    ],
)
def test_columns_that_matter_less_give_way_on_narrow_terminals(width: int, columns: str) -> None:
    lines = table(width)
    assert lines[1].split() == columns.split()
    assert len(lines) == 4
    assert all(len(line) <= width for line in lines)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console, stream = terminal()
    progress = LiveProgress(console)
    progress(started(loading(), working()))
    progress(RunFinished("r1", "complete", 1.0))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", stream.getvalue())


def test_what_is_to_be_known_is_said_above_the_table() -> None:
    console, stream = terminal()
    progress = LiveProgress(console)
    progress(started(loading(), working()))
    progress(RunUnguarded("others may compute it too"))
    progress(DamageFound("The part x is damaged."))
    progress(RunFinished("r1", "complete", 1.0))
    assert "note: others may compute it too" in stream.getvalue()
    assert "note: The part x is damaged." in stream.getvalue()


def test_the_table_gives_way_to_the_summary() -> None:
    console, stream = terminal()
    progress = LiveProgress(console)
    progress(started(loading(), working()))
    progress(advanced("load", 0, 40))
    progress(StepFinished("load", 40))
    progress(RunStopping(2))
    progress(RunFinished("r1", "interrupted", 3.0))
    lines = stream.getvalue().splitlines()
    assert "stopping" in stream.getvalue()
    assert lines[-1] == "pipeline 'p': stopped, 0 rows reused, 40 computed (3.0 s)"


def test_a_complete_hit_draws_no_table() -> None:
    console, stream = terminal()
    progress = LiveProgress(console)
    progress(started(loading("not needed"), working("hit", rows_known=20)))
    progress(RunFinished("r1", "complete", 0.04))
    assert stream.getvalue() == "pipeline 'p': complete hit, 20 rows reused, nothing computed (0.0 s)\n"


def test_what_a_script_prints_into_a_file_stays_there(capsys: pytest.CaptureFixture[str]) -> None:
    console, stream = terminal()
    progress = LiveProgress(console)
    progress(started(loading(), working()))
    print("into the file")
    progress(RunFinished("r1", "complete", 1.0))
    assert capsys.readouterr().out == "into the file\n"
    assert "into the file" not in stream.getvalue()


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    console, stream = terminal()
    progress = LiveProgress(console)
    progress(RunStarted("r1", "[bold]x[/bold]", "/root", (loading("hit", rows_known=1),)))
    progress(RunFinished("r1", "complete", 0.0))
    assert "[bold]x[/bold]" in stream.getvalue()


def test_events_are_cheap_whatever_their_rate() -> None:
    console, _ = terminal()
    progress = LiveProgress(console)
    progress(started(loading(), working()))
    begun = time.process_time()
    for tick in range(10_000):
        progress(advanced("work", tick, tick))
    spent = time.process_time() - begun
    progress(RunFinished("r1", "complete", 1.0))
    assert spent < 0.5  # 50 us an event at most; a call of an actor costs the driver 700 us
