"""``distill-ray run``: run the pipeline of a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from distill_ray.cli.options import Options, Record, common_options, parse_parameters
from distill_ray.cli.script import load_pipeline

if TYPE_CHECKING:
    from distill_ray.distiset import Distiset
    from distill_ray.pipeline.guarding import OnBusy
    from distill_ray.pipeline.running import Engine


@click.command()
@click.argument("script", metavar="SCRIPT[:PIPELINE]")
@common_options
@click.option(
    "--engine",
    type=click.Choice(["ray", "inline"]),
    default="ray",
    show_default=True,
    help="Where steps run; inline is this process, where breakpoints work.",
)
@click.option(
    "--on-busy",
    type=click.Choice(["wait", "compute", "fail"]),
    default="wait",
    show_default=True,
    help="What to do about steps that another run computes at this moment.",
)
def run(script: str, engine: Engine, on_busy: OnBusy, options: Options) -> Record:
    """Run the pipeline of SCRIPT, computing what the cache does not hold yet.

    The pipeline is made at SCRIPT's top level; what stands under `if __name__ == "__main__"` is not run.
    Where there are several, PIPELINE is the variable that holds the one meant, or its name.

    \b
    Example:
      distill-ray run pipeline.py --cache-dir gs://team/cache \\
          --param generation.llm.generation_kwargs.temperature=0.3
    """
    pipeline = load_pipeline(script, options.cache_dir)
    parameters = parse_parameters(pipeline, options.params)
    distiset = pipeline.run(parameters, use_cache=options.use_cache, engine=engine, on_busy=on_busy)
    if not options.as_json:
        click.echo(repr(distiset))
    return run_record(distiset)


def run_record(distiset: Distiset) -> Record:
    """What a run came to: its report, and the number of rows in each leaf and split."""
    leaves = {leaf: {split: len(rows) for split, rows in splits.items()} for leaf, splits in distiset.items()}
    return {**distiset.report.model_dump(), "distiset": leaves}
