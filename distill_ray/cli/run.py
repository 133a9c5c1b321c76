"""``distill-ray run``: run the pipeline of a script."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from distill_ray.cli.options import Options, Record, common_options, parse_parameters
from distill_ray.cli.script import load_pipeline

if TYPE_CHECKING:
    from distill_ray.distiset import Distiset
    from distill_ray.pipeline.guarding import OnBusy
    from distill_ray.pipeline.running import CacheScope, Engine


@dataclass(frozen=True)
class RunOptions:
    """What is given to a run, wherever it runs.

    Attributes:
        on_busy: what to do about steps that another run computes.
        verify: share of the reused units that are computed again to compare.
        cache_scope: whether other pipelines share the outputs; None leaves it to the pipeline.
        read_only: write nothing into the cache.
        load_groups: the stages to run in, as JSON or by name; empty for none.
        wait_for_resources: seconds to wait for a node that can hold what a step declares.
    """

    on_busy: OnBusy
    verify: float
    cache_scope: CacheScope | None
    read_only: bool
    load_groups: str = ""
    wait_for_resources: float | None = None


_RUN_OPTIONS = (
    click.option(
        "--wait-for-resources",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long to wait for a node that can hold what a step declares. "
        "[default: $DISTILL_RAY_WAIT_FOR_RESOURCES, else what no node has is an error at once]",
    ),
    click.option(
        "--load-groups",
        default="",
        metavar="GROUPS",
        help="Stages to run in: lists of steps that run together, as JSON, such as "
        '\'[["judge", "filter"]]\', or sequential_step_execution.',
    ),
    click.option(
        "--read-only",
        is_flag=True,
        help="Write nothing into the cache, and so compute nothing: what is not there is an error.",
    ),
    click.option(
        "--cache-scope",
        type=click.Choice(["shared", "pipeline"]),
        help="Share outputs with all pipelines that use the cache, or keep them to this one. "
        "[default: the pipeline's own]",
    ),
    click.option(
        "--verify",
        type=click.FloatRange(0, 1),
        default=0.0,
        metavar="SHARE",
        help="Compute this share of the reused rows again, from 0 to 1, and report how many differ.",
    ),
    click.option(
        "--on-busy",
        type=click.Choice(["wait", "compute", "fail"]),
        default="wait",
        show_default=True,
        help="What to do about steps that another run computes at this moment.",
    ),
)


def run_options(command: Callable[..., Record]) -> Callable[..., Record]:
    """Give the command what a run can be given as one `RunOptions`."""

    @functools.wraps(command)
    def gathered(
        *,
        on_busy: OnBusy,
        verify: float,
        cache_scope: CacheScope | None,
        read_only: bool,
        load_groups: str,
        wait_for_resources: float | None,
        **others: Any,
    ) -> Record:
        given = RunOptions(on_busy, verify, cache_scope, read_only, load_groups, wait_for_resources)
        return command(run_options=given, **others)

    for option in _RUN_OPTIONS:
        gathered = option(gathered)
    return gathered


def _checked_profile(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    """Refuse the script, which stands there where no file is meant."""
    if given and not given.endswith(".json"):
        raise click.BadParameter(
            f"its file is one whose name ends with .json, not '{given}'. Without a file, say --profile after "
            "SCRIPT."
        )
    return given


@click.command()
@click.argument("script", metavar="SCRIPT[:PIPELINE]")
@common_options
@run_options
@click.option(
    "--engine",
    type=click.Choice(["ray", "inline"]),
    default="ray",
    show_default=True,
    help="Where steps run; inline is this process, where breakpoints work.",
)
@click.option(
    "--profile",
    metavar="FILE",
    is_flag=False,
    flag_value="",
    callback=_checked_profile,
    help="Write a Chrome trace of the run to a file named *.json; without one, trace-<run>.json.",
)
def run(
    script: str, engine: Engine, profile: str | None, run_options: RunOptions, options: Options
) -> Record:
    """Run the pipeline of SCRIPT, computing what the cache does not hold yet.

    The pipeline is made at SCRIPT's top level; what stands under `if __name__ == "__main__"` is not run.
    Where there are several, PIPELINE is the variable that holds the one meant, or its name.

    \b
    Example:
      distill-ray run pipeline.py --cache-dir gs://team/cache \\
          --param generation.llm.generation_kwargs.temperature=0.3
    """
    pipeline = load_pipeline(script, options.cache_dir)
    if run_options.cache_scope:
        pipeline.cache_scope = run_options.cache_scope
    if run_options.read_only:
        pipeline.cache_read_only = True
    distiset = pipeline.run(
        parse_parameters(pipeline, options.params),
        use_cache=options.use_cache,
        engine=engine,
        verify=run_options.verify,
        on_busy=run_options.on_busy,
        load_groups=_groups(run_options.load_groups),
        wait_for_resources=run_options.wait_for_resources,
        profile=False if profile is None else profile or True,
    )
    if not options.as_json:
        click.echo(repr(distiset))
    return run_record(distiset)


def _groups(given: str) -> Any:
    """Stages as `Pipeline.run` takes them: it says what is wrong with them."""
    try:
        return json.loads(given) if given else None
    except json.JSONDecodeError:
        return given


def run_record(distiset: Distiset) -> Record:
    """What a run came to: its report, and the number of rows in each leaf and split."""
    leaves = {leaf: {split: len(rows) for split, rows in splits.items()} for leaf, splits in distiset.items()}
    return {**distiset.report.model_dump(), "distiset": leaves}
