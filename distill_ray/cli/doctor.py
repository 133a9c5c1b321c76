"""``distill-ray doctor``: whether this machine, and each node of a cluster, can use a cache root."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import click

from distill_ray.cache.root_probe import remedy
from distill_ray.cli.amounts import bytes_text, count_text, shown
from distill_ray.cli.options import Record
from distill_ray.storage import LayeredStorage, ReadOnlyStorage, Storage, open_storage

if TYPE_CHECKING:
    from distill_ray.engine.inspection import Inspection

CLOCK_SECONDS = 5.0
"""Apart by more than this, clocks are worth a word."""

_WIDTH = 100

HERE = "this machine"


@dataclass(frozen=True)
class Place:
    """A machine that was looked at.

    Attributes:
        name: what it is called in full.
        label: what it is called in a table.
        found: what it says; None where it said nothing.
        error: why it cannot use the root; empty where it can.
        resources: what Ray says it has.
        clock: seconds by which its clock is ahead of ours.
    """

    name: str
    label: str
    found: Inspection | None
    error: str
    resources: Mapping[str, float] = field(default_factory=dict)
    clock: float | None = None


@click.command()
@click.option(
    "--cache-dir",
    metavar="URL",
    multiple=True,
    help="Path or URL of the cache root, such as gs://bucket/prefix. Given again: roots that are only read. "
    "[default: $DISTILL_RAY_CACHE_DIR or ~/.cache/distill_ray]",
)
@click.option(
    "--address",
    default="",
    metavar="ADDRESS",
    help="A Ray cluster, whose nodes are looked at too: HOST:PORT of its head, or `auto` on one of its "
    "nodes. [default: this machine only, without Ray]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def doctor(*, cache_dir: tuple[str, ...], address: str, as_json: bool) -> Record:
    """Try from here, and from each node of a cluster, whether a cache root can be used, and how fast it is.

    Shows for each machine: versions, which kind of credentials would be used, how long a small object takes,
    how fast one of 8 MiB travels, whether objects can be created exclusively (what keeps two runs from
    computing the same), and how far its clock is off. What is written is removed again. Ends with 3 where
    a machine cannot use the root.

    \b
    Example:
      distill-ray doctor --cache-dir gs://bucket/prefix
      distill-ray doctor --cache-dir gs://bucket/prefix --address 10.0.0.2:6379
    """
    from distill_ray.engine.inspection import inspect_here
    from distill_ray.pipeline.running import cache_roots

    urls = cache_roots(cache_dir or None)
    storage, *others = (open_storage(url) for url in urls)
    if others:
        storage = LayeredStorage(storage, tuple(ReadOnlyStorage(each) for each in others))
    here = inspect_here(storage)
    places = [Place(HERE, HERE, here, here.error)]
    if address:
        places += _nodes(address, storage, usable=not here.error)
    exit_code = 3 if any(place.error for place in places) else 0
    if not as_json:
        click.echo("\n".join(report_lines(storage.url, places)))
    return {
        "cache_dir": urls,
        "status": "unusable" if exit_code else "usable",
        "exit_code": exit_code,
        "machines": [asdict(place) for place in places],
    }


def _nodes(address: str, storage: Storage, *, usable: bool) -> list[Place]:
    from distill_ray.engine.on_ray.inspecting import inspect_cluster

    return [
        Place(str(each.node), each.node.label, each.found, each.error, each.node.resources, each.clock)
        for each in inspect_cluster(address, storage, shared=usable)
    ]


def report_lines(url: str, places: Sequence[Place]) -> Iterator[str]:
    """What there is to say, for people: the first place is this machine."""
    yield f"Cache root {url}"
    yield ""
    yield from _table(_SPEED_COLUMNS, [_speed_cells(place) for place in places])
    yield ""
    yield from _table(_SOFTWARE_COLUMNS, [_software_cells(place, places[0]) for place in places])
    yield from _remarks(places)
    for place in places:
        if place.error:
            yield ""
            yield f"{place.name} cannot use it:"
            yield from textwrap.wrap(
                shown(" ".join(place.error.split())), _WIDTH, initial_indent="  ", subsequent_indent="  "
            )
    yield ""
    failing = sum(1 for place in places if place.error)
    if not failing:
        yield f"All is well: {url} can be used from {count_text(len(places), 'machine')}."
    else:
        yield f"{url} cannot be used from {failing:,} of {count_text(len(places), 'machine')}."
        if any(place.error for place in places[1:]):
            yield from textwrap.wrap(remedy(url), _WIDTH)


_SPEED_COLUMNS = ("machine", "CPU", "GPU", "read", "write", "MB/s read", "written", "exclusive", "clock")

_SOFTWARE_COLUMNS = ("machine", "python", "ray", "pyarrow", "distill_ray", "free disk", "credentials")


def _speed_cells(place: Place) -> tuple[str, ...]:
    amounts = [f"{place.resources.get(name, 0):g}" if place.resources else "" for name in ("CPU", "GPU")]
    clock = "" if place.clock is None else f"{place.clock:+.1f} s"
    if place.found is None or (speed := place.found.speed) is None or place.error:
        return (place.label, *amounts, "no", "no", "", "", "", clock)
    return (
        place.label,
        *amounts,
        f"{speed.read_ms:.1f} ms",
        f"{speed.write_ms:.1f} ms",
        f"{speed.read_bytes / 1e6:.1f}",
        f"{speed.write_bytes / 1e6:.1f}",
        "yes" if speed.exclusive else "no",
        clock,
    )


def _software_cells(place: Place, here: Place) -> tuple[str, ...]:
    if place.found is None:
        return (place.label, *["?"] * 6)
    return (
        place.label,
        *(f"{version}{_mark(name, version, here)}" for name, version in place.found.versions.items()),
        bytes_text(place.found.disk_free),
        ", ".join(place.found.credentials) or "-",
    )


def _mark(name: str, version: str, here: Place) -> str:
    return "" if here.found is None or here.found.versions[name] == version else " !"


def _remarks(places: Sequence[Place]) -> Iterator[str]:
    here, *nodes = places
    found = [place.found for place in nodes if place.found is not None]
    if here.found is not None and any(each.versions != here.found.versions for each in found):
        yield "! another version than here: have the same everywhere."
    if any(each is not None and each.speed is not None and not each.speed.exclusive for each in found):
        yield "Objects cannot be created exclusively: runs at the same time may compute the same twice."
    if any(abs(place.clock or 0) > CLOCK_SECONDS for place in nodes):
        yield f"Clocks differ by more than {CLOCK_SECONDS:.0f} s: credentials may be refused."


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    lines = [columns, *rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
