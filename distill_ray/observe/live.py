"""Progress as a table that is redrawn in place, on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distill_ray.events import DamageFound, RunEvent, RunFinished, RunStarted, RunUnguarded
from distill_ray.observe.standing import RunStanding, StepStanding
from distill_ray.observe.summary import (
    rate_text,
    rows_text,
    stopping_text,
    summary_lines,
    waiting_text,
)

REFRESHES_PER_SECOND = 4
"""A thread of its own draws; events only change numbers, whatever their rate."""

STYLES = {
    "hit": "green",
    "not needed": "dim",
    "resume": "cyan",
    "compute": "",
    "forced": "magenta",
    "waiting": "dim",
    "running": "yellow",
    "done": "green",
    "failed": "bold red",
}

GAP = 2


@dataclass(frozen=True)
class _Column:
    """A column of the table: the higher its rank, the sooner it goes where the terminal is narrow."""

    title: str
    rank: int
    cells: list[str]
    right: bool = False

    @property
    def width(self) -> int:
        return max(map(cell_len, [self.title, *self.cells]))


class LiveProgress:
    """Shows a table while the run goes on, and at the end what was reused and what was computed."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._run = RunStanding()
        self._started = time.monotonic()
        self._live: Live | None = None

    def __call__(self, event: RunEvent) -> None:
        """Take in an event of the run."""
        self._run.listen(event)
        if isinstance(event, RunStarted) and not self._run.complete_hit:
            self._live = Live(
                self,
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
                # What is printed goes above the table, unless it goes somewhere else already.
                redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            )
            self._live.start()
        elif isinstance(event, RunUnguarded | DamageFound):
            self._console.print(Text(f"note: {event.reason}"), soft_wrap=True)
        elif isinstance(event, RunFinished):
            if self._live is not None:
                self._live.stop()
            for line in summary_lines(self._run):
                self._console.print(Text(line), soft_wrap=True)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the run as it stands now: what rich calls a renderable."""
        now = time.monotonic()
        yield Text(
            f"pipeline '{self._run.started.pipeline}', {now - self._started:.0f} s, "
            f"cache {self._run.started.cache}",
            overflow="ellipsis",
            no_wrap=True,
        )
        steps = list(self._run.steps.values())
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        shown = list(_fitting(_columns(steps, now), options.max_width))
        for column in shown:
            table.add_column(
                column.title, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis"
            )
        for row in zip(*(column.cells for column in shown), strict=True):
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        yield table
        if self._run.stopping is not None:
            yield Text(stopping_text(self._run.stopping), style="yellow")


def _columns(steps: list[StepStanding], now: float) -> list[_Column]:
    return [
        _Column("step", 0, [step.name for step in steps]),
        _Column("decision", 2, [step.decided.decision for step in steps]),
        _Column("state", 1, [step.state for step in steps]),
        _Column("rows", 0, [rows_text(step) for step in steps], right=True),
        _Column("rows/s", 3, [rate_text(step, now) for step in steps], right=True),
        _Column("reused", 4, [f"{step.advanced.rows_reused:,}" for step in steps], right=True),
        _Column("computed", 4, [f"{step.advanced.rows_computed:,}" for step in steps], right=True),
        _Column("replicas", 5, [_replicas(step) for step in steps], right=True),
        _Column("reason", 6, [waiting_text(step) if step.holder else step.decided.reason for step in steps]),
    ]


def _replicas(step: StepStanding) -> str:
    return f"{step.replicas} / {step.decided.replicas}" if step.decided.runs else ""


def _fitting(columns: list[_Column], width: int) -> Iterator[_Column]:
    """The columns that fit, those of the highest rank left out first; two always stay."""
    ranks = {column.rank for column in columns}
    while sum(column.width + GAP for column in columns if column.rank in ranks) > width and len(ranks) > 1:
        ranks.remove(max(ranks))
    return (column for column in columns if column.rank in ranks)
