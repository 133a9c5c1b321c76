"""``distill-ray explain``: why each step of a pipeline would run, and what it would find."""

from __future__ import annotations

import click

from distill_ray.cli.options import Options, Record, common_options, parse_parameters
from distill_ray.cli.script import load_pipeline


@click.command()
@click.argument("script", metavar="SCRIPT[:PIPELINE]")
@click.argument("step", metavar="[STEP]", required=False)
@common_options
def explain(script: str, step: str | None, options: Options) -> Record:
    """Say why each step of SCRIPT would run, or why STEP would; runs nothing.

    Names what changed since the pipeline's last run: parameters (CONFIG), code with its diff (CODE), rows and
    their columns (DATA), the model (MODEL), a step above (UPSTREAM), or where the cache is not to be used
    (FORCED). Tells the rows that are found and those to compute, what the found ones cost when they were
    made, and what the fingerprint of the code cannot see.

    \b
    Example:
      distill-ray explain pipeline.py generation
    """
    from distill_ray.observe.explanation_text import explanation_text

    pipeline = load_pipeline(script, options.cache_dir)
    parameters = parse_parameters(pipeline, options.params)
    found = pipeline.explain(step, parameters=parameters, use_cache=options.use_cache)
    if not options.as_json:
        click.echo(explanation_text(found))
    return found.to_json()
