"""``distill-ray submit``: run the pipeline of a script as a job on a Ray cluster."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distill_ray.cli.options import Options, Record, common_options
from distill_ray.cli.run import RunOptions, run_options
from distill_ray.cli.script import split_target
from distill_ray.credentials import names_credential
from distill_ray.errors import ParameterError

if TYPE_CHECKING:
    from distill_ray.engine.on_ray.jobs import JobClient, Outcome

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of the installed distill_ray, whether a wheel or a checkout: nothing around it."""

STOPPED_FOLLOWING = 130
"""What a shell says of a process that Ctrl-C ended; the job itself is left alone."""

OWN_VARIABLES = "DISTILL_RAY_"
"""Settings of this shell go along with the job: it does what `distill-ray run` would do here."""


@click.command()
@click.argument("script", metavar="SCRIPT[:PIPELINE]")
@common_options
@run_options
@click.option(
    "--address",
    default="",
    metavar="URL",
    help="Where the cluster's dashboard is, such as http://HOST:8265. "
    "[default: $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS]",
)
@click.option(
    "--follow/--no-wait",
    default=False,
    help="Show what the job prints until it ends, and exit with its code; or come back at once.",
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="An environment variable for the run and its steps on every node, without VALUE that of this "
    "shell; may be given several times. Whoever sees the cluster's dashboard can read it. Variables of this "
    "shell that begin with DISTILL_RAY_ go along by themselves.",
)
@click.option(
    "--working-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder to ship; SCRIPT lies in it. [default: SCRIPT's own folder]",
)
@click.option(
    "--ship/--no-ship",
    default=True,
    help="Ship this very distill_ray with the job (the default), or use what is installed on the cluster. "
    "What it depends on must be installed there in either case.",
)
@click.option("--submission-id", default="", metavar="ID", help="A name for the job. [default: made by Ray]")
def submit(
    script: str,
    *,
    address: str,
    follow: bool,
    variables: tuple[str, ...],
    working_dir: Path | None,
    ship: bool,
    submission_id: str,
    run_options: RunOptions,
    options: Options,
) -> Record:
    """Run the pipeline of SCRIPT as a job on a Ray cluster that is up.

    SCRIPT's folder is shipped, without what .gitignore or .rayignore there name, and so is this
    distill_ray; then the job does what `distill-ray run SCRIPT` does. To go on with a job that failed or
    was stopped, submit it again: what it had finished is in the cache.

    \b
    Example:
      distill-ray submit pipeline.py --address http://HOST:8265 --cache-dir gs://team/cache --follow

    Exit codes with --follow: that of the job, 143 where it was stopped, 130 where you stopped following.
    """
    from distill_ray.engine.on_ray.jobs import Job, JobClient

    path, pipeline = split_target(script)
    folder = (working_dir or path.parent).resolve()
    env_vars = dict(_variables(variables))
    roots = options.cache_dir or (env_vars.get("DISTILL_RAY_CACHE_DIR", ""),)
    local = [root for root in roots if root and _is_local(root)]
    command = shlex.join(_command(_inside(path, folder), pipeline, options, run_options))
    packages = (PACKAGE,) if ship else ()
    client = JobClient(address)
    if local and client.nodes() > 1:
        _say(
            f"note: {local[0]} must be a folder that all nodes of the cluster share; the run checks that. "
            "A bucket needs no such folder."
        )
    job = client.submit(Job(command, folder, packages, env_vars, submission_id))
    record: Record = {"job": job, "address": client.address, "command": command, "status": "PENDING"}
    if not follow:
        if not options.as_json:
            click.echo(_next_steps(client, job))
        return record
    try:
        outcome = _follow(client, job)
    except KeyboardInterrupt:
        _say(f"\nNot followed any more; the job goes on.\n{_next_steps(client, job)}")
        return {**record, "status": "RUNNING", "exit_code": STOPPED_FOLLOWING}
    return {**record, "status": outcome.status, "exit_code": outcome.exit_code}


def _inside(path: Path, folder: Path) -> str:
    """The script as the job names it."""
    resolved = path.parent.resolve() / path.name  # where it stands, though it may be a link
    if not resolved.is_relative_to(folder):
        raise ParameterError(f"{path} does not lie in --working-dir {folder}, the folder that is shipped.")
    return str(resolved.relative_to(folder))


def _variables(given: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name.startswith(OWN_VARIABLES) and name != "DISTILL_RAY_PROGRESS":  # meant for a terminal here
            yield name, value
    for text in given:
        name, equals, value = text.partition("=")
        if not name:
            raise ParameterError(f"--env wants NAME or NAME=VALUE, not '{text}'.")
        if not equals and name not in os.environ:
            raise ParameterError(f"--env {name}: this shell has no such variable; give it as {name}=VALUE.")
        yield name, value if equals else os.environ[name]


def _is_local(root: str) -> bool:
    """Whether a cache root is a folder.

    Raises:
        ParameterError: it is one that no other machine can have.
    """
    if "://" in root and not root.startswith("file://"):
        return False
    if not Path(root.removeprefix("file://")).is_absolute():
        raise ParameterError(
            f"The cache root '{root}' would lie in the job's copy of the folder, and be lost with it. Name a "
            "bucket, such as gs://bucket/prefix, or the absolute path of a folder that all nodes share."
        )
    return True


def _open(parameter: str) -> str:
    """A parameter that may be shown: the command of a job stands on the cluster's dashboard.

    Raises:
        ParameterError: it sets a credential.
    """
    name = parameter.partition("=")[0]
    if names_credential(name.rpartition(".")[2]):
        raise ParameterError(
            f"--param {name} would show a credential to all who see the cluster's jobs: set the variable "
            "from which the model reads it on the nodes, or leave it to the script."
        )
    return parameter


def _command(script: str, pipeline: str, options: Options, run: RunOptions) -> Iterator[str]:
    """The words of the command that the job runs."""
    yield from ("python", "-m", "distill_ray", "run", f"{script}:{pipeline}" if pipeline else script)
    for root in options.cache_dir:
        yield from ("--cache-dir", root)
    for text in options.params:
        yield from ("--param", _open(text))
    if not options.use_cache:
        yield "--no-cache"
    if run.on_busy != "wait":
        yield from ("--on-busy", run.on_busy)
    if run.verify:
        yield from ("--verify", str(run.verify))
    if run.cache_scope:
        yield from ("--cache-scope", run.cache_scope)
    if run.read_only:
        yield "--read-only"
    if run.load_groups:
        yield from ("--load-groups", run.load_groups)
    if run.wait_for_resources is not None:
        yield from ("--wait-for-resources", str(run.wait_for_resources))


def _next_steps(client: JobClient, job: str) -> str:
    return (
        f"Job {job} is submitted to {client.address}.\n"
        f"  what it prints:  ray job logs --follow --address {client.address} {job}\n"
        f"  stop it:         ray job stop --address {client.address} {job}\n"
        "Submitted again, it goes on from what is in the cache."
    )


def _follow(client: JobClient, job: str) -> Outcome:
    _say(f"job {job} on {client.address}")
    ends_line = True

    def write(text: str) -> None:
        nonlocal ends_line
        if text:
            click.echo(text, nl=False)
            ends_line = text.endswith("\n")

    outcome = client.follow(job, write)
    if not ends_line:
        click.echo()
    _say(f"job {job}: {outcome.status}" + (f", exit code {outcome.exit_code}" if outcome.exit_code else ""))
    if outcome.status == "FAILED" and outcome.code is None:  # it never came to run, so it has said nothing
        _say(outcome.message)
    return outcome


def _say(text: str) -> None:
    """Beside what the job prints."""
    print(text, file=sys.stderr, flush=True)
