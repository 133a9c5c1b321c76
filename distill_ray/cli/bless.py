"""``distill-ray cache bless``: let a refactored step use what its old code computed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from distill_ray.cli.options import Options, Record, common_options, parse_parameters
from distill_ray.cli.script import load_pipeline
from distill_ray.errors import ParameterError

if TYPE_CHECKING:
    from distill_ray.pipeline.blessing import RowDifference, Trial

SHOWN = 20
"""Rows that are shown of those that differ."""

VALUE_LENGTH = 200
"""Characters that are shown of a value."""


@click.command()
@click.argument("script", metavar="SCRIPT[:PIPELINE]")
@click.argument("step")
@common_options
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Units (rows of a row-wise step, else batches) that the new code is tried on.",
)
@click.option("--yes", is_flag=True, help="Bless the step although rows differ, without asking.")
def bless(script: str, step: str, samples: int, yes: bool, options: Options) -> Record:
    """Let STEP of SCRIPT, whose code changed, go on with what its old code computed.

    Runs the new code in this process on some of the inputs whose outputs are stored. Where all rows come out
    the same, the step is blessed: it and all below it are found in the cache again. Where some differ, they
    are shown, and it is blessed only if you say so.

    \b
    Example:
      distill-ray cache bless pipeline.py judge --samples 50
    """
    from distill_ray.pipeline.blessing import bless as bless_trials
    from distill_ray.pipeline.blessing import try_new_code
    from distill_ray.pipeline.pipeline import planned

    pipeline = load_pipeline(script, options.cache_dir)
    plan, store = planned(pipeline, parse_parameters(pipeline, options.params))
    trials = try_new_code(plan, store, step, samples)
    if not options.as_json:
        click.echo("\n".join(line for trial in trials for line in _lines(trial)))
    if any(trial.differences for trial in trials) and not yes:
        _ask(step, trials, may_ask=not options.as_json and sys.stdin.isatty())
    bless_trials(store, trials)
    if not options.as_json:
        click.echo(f"Blessed: '{step}' and what follows it use what is stored.")
    return {"step": step, "blessed": True, "trials": [_record(trial) for trial in trials]}


def _ask(step: str, trials: tuple[Trial, ...], *, may_ask: bool) -> None:
    if may_ask and click.confirm(f"Bless '{step}' nevertheless?"):
        return
    count = sum(len(trial.differences) for trial in trials)
    rows = sum(trial.rows for trial in trials)
    first = next(trial.differences[0] for trial in trials if trial.differences)
    raise ParameterError(
        f"Step '{step}' was not blessed: {count} of {rows} rows that were tried came out differently, the "
        f"first in {_difference(first)}. To bless it nevertheless, give --yes."
    )


def _lines(trial: Trial) -> Iterator[str]:
    changed = ", ".join(piece.name for piece in trial.code) or "what its names stand for"
    yield f"{trial.step}: changed code: {changed}"
    differing = len(trial.differences)
    outcome = f"{differing:,} rows came out differently" if differing else "all came out as they are stored"
    yield f"  {trial.units:,} units with {trial.rows:,} rows tried: {outcome}"
    for difference in trial.differences[:SHOWN]:
        yield f"    {_difference(difference)}"
    if differing > SHOWN:
        yield f"    and {differing - SHOWN:,} more"
    if differing and trial.asks_model:
        yield "  The step asks a model: its answers may differ although the code does the same."


def _difference(difference: RowDifference) -> str:
    place = f"unit {difference.unit}, row {difference.row}"
    if difference.old is None:
        return f"{place}: is new: {_text(difference.new)}"
    if difference.new is None:
        return f"{place}: is missing: {_text(difference.old)}"
    names = dict.fromkeys([*difference.old, *difference.new])
    columns = [f"{name}: {_value(difference.old, name)} -> {_value(difference.new, name)}" for name in names]
    return f"{place}: {', '.join(columns)}"


def _value(row: dict[str, Any], name: str) -> str:
    return _text(row[name]) if name in row else "not there"


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 3]}..."


def _record(trial: Trial) -> Record:
    return {
        "step": trial.step,
        "old": trial.old.signature,
        "new": trial.new,
        "units": trial.units,
        "rows": trial.rows,
        "asks_model": trial.asks_model,
        "differences": [vars(difference) for difference in trial.differences],
    }
