"""What the commands of ``distill-ray cache`` share: the root, how they report, and a sign of life."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from distill_ray.cache.inventory import Tell, roots
from distill_ray.cache.lookup import Entry, find_entries
from distill_ray.cache.root_settings import is_used, read_settings
from distill_ray.cli.amounts import shown
from distill_ray.cli.options import Record
from distill_ray.errors import ParameterError, StorageError
from distill_ray.storage import Storage, open_storage

_LISTED = 20


@dataclass(frozen=True)
class CacheRoot:
    """The root that a command looks after.

    Attributes:
        storage: the root.
        others: roots that it is read together with; nothing of them is changed.
        as_json: whether a document is printed in place of text.
    """

    storage: Storage
    others: tuple[Storage, ...]
    as_json: bool

    def say(self, text: str = "") -> None:
        """Print a line of the report, unless a document is wanted."""
        if not self.as_json:
            click.echo(text)


def on_cache_root(command: Callable[..., Record]) -> Callable[..., Record]:
    """Give the command ``--json`` and ``--cache-dir`` as one `CacheRoot`, which is used and of our format."""

    @functools.wraps(command)
    def opened(*, as_json: bool, cache_dir: tuple[str, ...], **others: Any) -> Record:
        from distill_ray.pipeline.running import cache_roots

        first, *more = (open_storage(url) for url in cache_roots(cache_dir or None))
        for storage in (first, *more):
            read_settings(storage)  # refuses another format
            if not is_used(storage):
                raise StorageError(
                    f"There is no cache root at {storage.url}: no run has stored anything there. Name "
                    "another one with --cache-dir or DISTILL_RAY_CACHE_DIR."
                )
        return command(root=CacheRoot(first, tuple(more), as_json), **others)

    for option in (
        click.option(
            "--cache-dir",
            metavar="URL",
            multiple=True,
            help="Path or URL of the cache root, such as gs://bucket/prefix. Given again: roots that it "
            "is read together with, whose parts its outputs may name. "
            "[default: $DISTILL_RAY_CACHE_DIR or ~/.cache/distill_ray]",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
    ):
        opened = option(opened)
    return opened


def find_one(root: CacheRoot, name: str) -> Entry:
    """Find the one function or output that a name means.

    Raises:
        ParameterError: it means none, or several.
    """
    found = [entry for place in roots(root.storage, root.others) for entry in find_entries(place, name)]
    exactly = [entry for entry in found if str(entry) == name]
    if len(exactly or found) == 1:
        return (exactly or found)[0]
    if not found:
        raise ParameterError(
            f"Nothing in {root.storage.url} is called '{name}': give a class, or the beginning of a "
            "function's signature or of an output key, as `distill-ray cache ls` shows them."
        )
    listed = "\n".join(f"  {shown(str(entry))}" for entry in found[:_LISTED])
    raise ParameterError(f"'{name}' means {len(found):,} things; give more of the one you mean:\n{listed}")


@contextmanager
def sign_of_life(doing: str) -> Iterator[Tell]:
    """Give a function that is told what is being looked at; on a terminal it is shown on standard error."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or os.environ.get("DISTILL_RAY_PROGRESS") == "none":
        yield silent
        return
    count = 0
    with console.status(doing) as status:

        def tell(what: str) -> None:
            nonlocal count
            count += 1
            status.update(f"{doing}: {count:,} looked at; {what}")

        yield tell


def silent(_what: str) -> None:
    """Show nothing."""
