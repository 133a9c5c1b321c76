"""``distill-ray plan``: what a run would do, and why, without running anything."""

from __future__ import annotations

import click

from distill_ray.cli.options import Options, Record, common_options, parse_parameters
from distill_ray.cli.script import load_pipeline


@click.command()
@click.argument("script", metavar="SCRIPT[:PIPELINE]")
@common_options
def plan(script: str, options: Options) -> Record:
    """Say what a run of SCRIPT would compute, and why; runs nothing.

    Each step is a `hit` (its output is stored), `resume` (some of it may be), `compute` (nothing is),
    `forced` (computed anew as asked) or `not needed` (all that follows it is stored).

    \b
    Example:
      distill-ray plan pipeline.py --json
    """
    from distill_ray.observe.plan_table import plan_record, plan_table

    pipeline = load_pipeline(script, options.cache_dir)
    found = pipeline.plan(parse_parameters(pipeline, options.params), use_cache=options.use_cache)
    if not options.as_json:
        click.echo(plan_table(found))
    return plan_record(found)
