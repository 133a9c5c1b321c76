"""``distill-ray plan``: what a run would do, and why, without running anything."""

from __future__ import annotations

import json

import click

from distill_ray.cli.script import common_options, load_pipeline, parse_parameters


@click.command()
@click.argument("script", metavar="SCRIPT[:PIPELINE]")
@common_options
def plan(script: str, as_json: bool, cache_dir: str | None, no_cache: bool, params: tuple[str, ...]) -> None:
    """Say what a run of SCRIPT would compute, and why.

    \b
    Example:
      distill-ray plan pipeline.py --json
    """
    from distill_ray.observe.plan_table import plan_table

    pipeline = load_pipeline(script)
    if cache_dir:
        pipeline.cache_dir = cache_dir
    found = pipeline.plan(parse_parameters(pipeline, params), use_cache=not no_cache)
    if not as_json:
        click.echo(plan_table(found))
        return
    record = {
        "pipeline": found.pipeline,
        "signature": found.signature,
        "aggregated_steps_signature": found.aggregated,
        "steps": {
            step.name: {
                "decision": step.decision,
                "reason": step.reason,
                "rows_known": step.rows_known,
                "signature": step.function.signature,
                "output_key": step.output_key,
            }
            for step in found.steps
        },
    }
    click.echo(json.dumps(record, indent=2))
