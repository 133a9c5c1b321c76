"""The options that commands share, and how ``--param`` is read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click
from pydantic import BaseModel

from distill_ray.errors import ParameterError
from distill_ray.pipeline import Pipeline

Record = dict[str, Any]
"""What a command returns: what ``--json`` prints."""


@dataclass(frozen=True)
class Options:
    """What was given to a command, whichever it is.

    Attributes:
        as_json: print one JSON document instead of text.
        cache_dir: the cache roots to use instead of the pipeline's own; may be empty.
        use_cache: False computes every step anew.
        params: ``STEP.FIELD=VALUE`` texts.
    """

    as_json: bool
    cache_dir: tuple[str, ...]
    use_cache: bool
    params: tuple[str, ...]


def common_options(command: Callable[..., Record]) -> Callable[..., Record]:
    """Give the command ``--json``, ``--cache-dir``, ``--no-cache`` and ``--param`` as one `Options`."""

    @functools.wraps(command)
    def gathered(
        *,
        as_json: bool,
        cache_dir: tuple[str, ...],
        no_cache: bool,
        params: tuple[str, ...],
        **others: Any,
    ) -> Record:
        return command(options=Options(as_json, cache_dir, not no_cache, params), **others)

    for option in (
        click.option(
            "--param",
            "params",
            multiple=True,
            metavar="STEP.FIELD=VALUE",
            help="A runtime parameter, nested ones with more dots; may be given several times. VALUE is "
            "JSON, else text: 3 is a number, '\"3\"' a text.",
        ),
        click.option("--no-cache", is_flag=True, help="Compute every step anew (and store it)."),
        click.option(
            "--cache-dir",
            multiple=True,
            metavar="URL",
            help="Path or URL of the cache root, such as gs://bucket/prefix. Given several times, all are "
            "read, in this order, and the first is written to. "
            "[default: the pipeline's own, $DISTILL_RAY_CACHE_DIR or ~/.cache/distill_ray]",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
    ):
        gathered = option(gathered)
    return gathered


def parse_parameters(pipeline: Pipeline, given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Read ``STEP.FIELD[.FIELD...]=VALUE``; the value is JSON, or text where it is not.

    A field inside a dict, such as ``generation.llm.generation_kwargs.temperature``, keeps the dict's others.

    Raises:
        ParameterError: it is not of that form.
    """
    parameters: dict[str, dict[str, Any]] = {}
    for text in given:
        step = _step_in(text, pipeline.graph.steps)
        name, equals, value = text.removeprefix(step).partition("=")
        fields = name.split(".")[1:]
        if not equals or not fields or not all((step, *fields)):
            raise ParameterError(f"--param wants STEP.FIELD=VALUE, not '{text}'.")
        model: Any = pipeline.graph.steps.get(step)
        _place(parameters.setdefault(step, {}), model, fields, _value(value))
    return parameters


def _step_in(text: str, steps: Iterable[str]) -> str:
    """The step that is meant: the longest name that fits, since names may have dots and equals signs."""
    named = [step for step in steps if text.startswith(f"{step}.")]
    return max(named, key=len, default=text.partition("=")[0].partition(".")[0])


def _place(tree: dict[str, Any], holder: Any, fields: list[str], value: Any) -> None:
    first, *rest = fields
    if not rest:
        tree[first] = value
        return
    if isinstance(holder, BaseModel):
        current = getattr(holder, first, None)
    else:
        current = holder.get(first) if isinstance(holder, Mapping) else None
    inner = tree.setdefault(first, dict(current) if isinstance(current, Mapping) else {})
    _place(inner, current, rest, value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
