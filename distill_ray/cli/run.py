"""``distill-ray run``: run the pipeline of a script."""

from __future__ import annotations

import click

from distill_ray.cli.script import common_options, load_pipeline, parse_parameters
from distill_ray.distiset import Distiset


@click.command()
@click.argument("script", metavar="SCRIPT[:PIPELINE]")
@common_options
@click.option("--engine", type=click.Choice(["ray", "inline"]), default="ray", show_default=True)
def run(
    script: str,
    as_json: bool,
    cache_dir: str | None,
    no_cache: bool,
    params: tuple[str, ...],
    engine: str,
) -> None:
    """Run the pipeline of SCRIPT.

    \b
    Example:
      distill-ray run pipeline.py --cache-dir gs://team/cache \\
          --param generation.llm.generation_kwargs.temperature=0.3
    """
    pipeline = load_pipeline(script)
    if cache_dir:
        pipeline.cache_dir = cache_dir
    parameters = parse_parameters(pipeline, params)
    distiset = pipeline.run(parameters, use_cache=not no_cache, engine=engine)  # type: ignore[arg-type]
    print_result(distiset, as_json=as_json)


def print_result(distiset: Distiset, *, as_json: bool) -> None:
    """Print the run's record, or a look at the rows."""
    click.echo(distiset.report.model_dump_json(indent=2) if as_json and distiset.report else repr(distiset))
