"""The command ``distill-ray``: gathers the commands, turns what goes wrong into a message and an exit code.

Exit codes:

0    done
1    a step failed: its traceback is shown; or `cache verify` found something wrong
2    the command line, the script, the pipeline in it or a parameter is wrong
3    the cache root or a file to load cannot be read or written, or another format made the root
4    a model, a cluster, or what a step declares in `resources`, is not to be had
70   something that distill_ray did not foresee: its traceback is shown
130  stopped by SIGINT (Ctrl-C): run it again to resume
141  whoever read standard output is gone
143  stopped by SIGTERM: likewise
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from distill_ray import __version__, errors
from distill_ray.cli.cache import cache
from distill_ray.cli.demo import demo
from distill_ray.cli.dependencies import what_is_missing
from distill_ray.cli.doctor import doctor
from distill_ray.cli.explain import explain
from distill_ray.cli.plan import plan
from distill_ray.cli.run import run
from distill_ray.cli.script import ScriptError
from distill_ray.cli.stdout import only_json
from distill_ray.cli.submit import submit
from distill_ray.credentials import credentials_in_url, names_credential

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.StepError, 1),
    (errors.RowError, 1),
    (errors.StorageError, 3),
    (errors.ModelError, 4),
    (errors.ResourceError, 4),
    (errors.DistillRayError, 2),
    (ScriptError, 2),
    (ModuleNotFoundError, 4),  # one of ours: those of scripts and steps come as errors of these
    (click.ClickException, 2),
    (KeyboardInterrupt, 130),
    (click.Abort, 130),
)

_OF_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray sets for the driver of a job that was submitted: a job is submitted again, not run."""

UNFORESEEN = 70
"""What sysexits.h calls EX_SOFTWARE."""

READER_GONE = 128 + 13
"""What a shell says of a process that SIGPIPE ended."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="distill-ray")
def cli() -> None:
    """Run synthetic-data pipelines that never pay twice.

    \b
    Example:
      distill-ray demo               a small model answers six questions; again: the cache does
      distill-ray plan pipeline.py   what would run, and why
      distill-ray run pipeline.py --param generation.llm.generation_kwargs.temperature=0.3

    \b
    Exit codes:
      0    done
      1    a step failed, or `cache verify` found something wrong
      2    the command line, the script, the pipeline in it or a parameter is wrong
      3    the cache root or a file to load cannot be read or written, or another format made it
      4    a model, a cluster, or what a step declares in `resources`, is not to be had
      70   something unforeseen
      130  stopped by SIGINT (Ctrl-C): run it again to resume
      141  whoever read standard output is gone
      143  stopped by SIGTERM: likewise

    Progress goes to standard error: a live table on a terminal, lines elsewhere.
    DISTILL_RAY_PROGRESS=none silences it, DISTILL_RAY_PROGRESS=plain wants lines everywhere.
    """


for command in (run, submit, plan, explain, demo, cache, doctor):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: without the program's name; by default those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if "--json" in given:
            return _run_as_json(given, ends=arguments is None)
        return _run(given)[0]
    except BrokenPipeError:
        # As after SIGPIPE: silent. The interpreter flushes once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return READER_GONE


def _run_as_json(arguments: list[str], *, ends: bool) -> int:
    with only_json(for_good=ends) as write:
        code, record = _run(arguments)
        if record is not None:
            write(json.dumps(record, indent=2))
    return code


def _run(arguments: list[str]) -> tuple[int, dict[str, Any] | None]:
    """Return the exit code, and what there is to say as JSON."""
    try:
        with cli.make_context("distill-ray", arguments) as context:
            record = cli.invoke(context)
            return (record or {}).get("exit_code", 0), record
    except click.exceptions.Exit as end:  # --help and the like
        return end.exit_code, None
    except BrokenPipeError:
        raise
    except BaseException as error:  # every way to end has its exit code
        code = exit_code(error)
        _show(error, code, arguments)
        return code, _error_record(error, code)


def exit_code(error: BaseException) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, errors.RunInterruptedError | errors.RunEndedError):
        return 128 + error.signal
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), UNFORESEEN)


def resume_command(arguments: Sequence[str]) -> str:
    """The command that goes on with a run; empty where it is not to be shown, or was given to a job.

    Example:
        >>> resume_command(["run", "my pipeline.py", "--no-cache"])
        "distill-ray run 'my pipeline.py'"
    """
    texts = [text for each in arguments for text in (each, each.partition("=")[2])]
    secret = any(names_credential(text.partition("=")[0].rpartition(".")[2]) for text in texts)
    if secret or _OF_A_JOB in os.environ or any(any(credentials_in_url(text)) for text in texts):
        return ""
    return shlex.join(["distill-ray", *(each for each in arguments if each != "--no-cache")])


def _show(error: BaseException, code: int, arguments: Sequence[str] = ()) -> None:
    if isinstance(error, click.ClickException):
        error.show()
    elif isinstance(error, errors.RunEndedError | errors.RunInterruptedError):
        click.echo(f"distill-ray: {error}", err=True)
        if command := resume_command(arguments):
            click.echo(f"  {command}", err=True)
    elif isinstance(error, KeyboardInterrupt | click.Abort):
        click.echo("distill-ray: stopped.", err=True)
    elif isinstance(error, ModuleNotFoundError):
        traceback.print_exception(error)
        click.echo(f"distill-ray: {what_is_missing(error)}", err=True)
    elif code == UNFORESEEN:
        traceback.print_exception(error)
    else:
        click.echo(f"distill-ray: {error}", err=True)


def _error_record(error: BaseException, code: int) -> dict[str, Any]:
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    record: dict[str, Any] = {
        "status": "interrupted" if code > 128 else "failed",
        "exit_code": code,
        "error": type(error).__name__,
        "message": message,
    }
    if isinstance(error, errors.StepError):
        record |= {"step": error.step, "rows": error.rows}
    return record
