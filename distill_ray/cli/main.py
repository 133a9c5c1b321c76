"""The command ``distill-ray``: one noun a file; this one gathers them and sets the exit codes.

Exit codes: 0 done; 1 a step failed; 2 wrong arguments, script or parameters; 3 the cache root cannot be
used; 4 a model or resource is not to be had; 130 stopped, run again to resume.
"""

from __future__ import annotations

import sys

import click

from distill_ray import __version__, errors
from distill_ray.cli.demo import demo
from distill_ray.cli.plan import plan
from distill_ray.cli.run import run

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.RunInterruptedError, 130),
    (KeyboardInterrupt, 130),
    (errors.StepError, 1),
    (errors.RowError, 1),
    (errors.StorageError, 3),
    (errors.ModelError, 4),
    (errors.ResourceError, 4),
    (errors.DistillRayError, 2),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="distill-ray")
def cli() -> None:
    """Run synthetic-data pipelines that never pay twice.

    \b
    Example:
      distill-ray demo                       a small model answers a small data set, then the cache does
      distill-ray plan pipeline.py           what would run, and why
      distill-ray run pipeline.py --param generation.llm.generation_kwargs.temperature=0.3

    \b
    Exit codes:
      0 done; 1 a step failed; 2 wrong arguments or script; 3 the cache root cannot be used;
      4 a model or resource is not to be had; 130 stopped (run again to resume)
    """


for command in (run, plan, demo):
    cli.add_command(command)


def main() -> None:
    """Run the command line; errors are one message on standard error and an exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except tuple(kind for kind, _ in EXIT_CODES) as error:
        click.echo(f"distill-ray: {type(error).__name__}: {error}", err=True)
        sys.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))
