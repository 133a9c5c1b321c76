"""A cache as runs leave it, made by hand: parts, manifests, records and heartbeats at times of the past."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from distill_ray.cache import paths
from distill_ray.cache.heartbeat import Beat, Heartbeat
from distill_ray.cache.manifest import Manifest, PartEntry, Segment
from distill_ray.cache.paths import FunctionId
from distill_ray.cache.rows import concat_tables, decode_rows, encode_rows, row_digests
from distill_ray.cache.store import CacheStore
from distill_ray.cache.unit_index import UnitIndex, concat_indexes

FUNCTION = FunctionId("Answer", "f" * 64)
OTHER = FunctionId("Other", "0" * 64)
DAY = 86_400.0
BEAT = 0.05


def run_id(days_ago: float = 0.0) -> str:
    """The id of a run that began so long ago."""
    begun = time.gmtime(time.time() - days_ago * DAY)
    return f"{time.strftime('%Y%m%dT%H%M%S', begun)}-{secrets.token_hex(4)}"


def key(name: str) -> str:
    """An output key."""
    return sha256(name.encode()).hexdigest()


def rows(first: int, count: int) -> list[dict[str, Any]]:
    """Rows that do not compress."""
    return [{"n": n, "text": sha256(str(n).encode()).hexdigest()} for n in range(first, first + count)]


def index_of(given: Sequence[dict[str, Any]], run: str, seconds: float = 1.0) -> UnitIndex:
    """An index that has a unit for each row."""
    keys = b"".join(int(row["n"]).to_bytes(16, "big") for row in given)
    return UnitIndex(keys, (1,) * len(given), row_digests(given), run, (), seconds, 10, 20)


def put_part(
    store: CacheStore, run: str, first: int = 0, count: int = 5, function: FunctionId = FUNCTION
) -> PartEntry:
    """Write a part with these rows."""
    given = rows(first, count)
    stem = f"{run}-000-{first:05d}"
    return store.write_part(function, stem, encode_rows(given), index_of(given, run))


def put_merged(
    store: CacheStore, run: str, parts: Sequence[PartEntry], function: FunctionId = FUNCTION
) -> PartEntry:
    """Write the part that these were merged into, as a run does that is then killed."""
    read = [store.read_part(function, part.name) for part in parts]
    index = concat_indexes([index for _, index in read], run, merged=[part.name for part in parts])
    return store.write_part(function, f"{run}-000-99999", concat_tables([table for table, _ in read]), index)


def put_output(
    store: CacheStore,
    name: str,
    run: str,
    parts: Sequence[PartEntry],
    function: FunctionId = FUNCTION,
    path: str | None = None,
) -> Manifest:
    """Write the manifest of an output that holds all rows of these parts."""
    indexes = [store.read_index(function, part) for part in parts]
    counts = [index.rows if index else 0 for index in indexes]
    content = sha256(b"".join(index.digests for index in indexes if index)).hexdigest()
    manifest = Manifest(
        function,
        key(name),
        sum(counts),
        content,
        tuple(parts),
        tuple(Segment(number, 0, count) for number, count in enumerate(counts)),
        {key(name): content},
        run,
        seconds=float(len(parts)),
        input_tokens=10,
        output_tokens=20,
    )
    store.storage.publish(path or function.manifest(manifest.output_key), manifest.to_json())
    return manifest


def put_run(
    store: CacheStore,
    run: str,
    outputs: Sequence[str] = (),
    pipeline: str = "made",
    function: FunctionId = FUNCTION,
) -> None:
    """Write the record of a run that used these outputs."""
    steps = {
        name: {"class_name": function.class_name, "function": function.signature, "output_key": key(name)}
        for name in outputs
    }
    record = {"run": run, "pipeline": pipeline, "status": "complete", "steps": steps}
    store.write_run_file(run, "run.json", json.dumps(record).encode())


def put_dead_heartbeat(store: CacheStore, run: str) -> None:
    """Write the heartbeat of a run that was killed, on another machine."""
    beat = Beat(run=run, beat_seconds=BEAT, process="")
    store.storage.publish(paths.heartbeat(run), beat.to_json())


@contextmanager
def live_run(
    store: CacheStore, outputs: Sequence[str] = (), functions: Sequence[FunctionId] = (FUNCTION,)
) -> Iterator[str]:
    """A run that lives while the context does, and says that it applies these functions."""
    run = run_id()
    first = Beat(
        run=run,
        outputs=tuple(key(name) for name in outputs),
        functions=tuple(function.signature for function in functions),
        beat_seconds=BEAT,
    )
    heart = Heartbeat(store.storage, first)
    heart.start()
    try:
        yield run
    finally:
        heart.end()


def rows_of(store: CacheStore, manifest: Manifest) -> list[dict[str, Any]]:
    """The rows of an output."""
    found: list[dict[str, Any]] = []
    for segment in manifest.segments:
        table, _ = store.read_part(manifest.function, manifest.parts[segment.part].name)
        found += decode_rows(table)[segment.first_row : segment.first_row + segment.rows]
    return found


def part_names(store: CacheStore, function: FunctionId = FUNCTION) -> set[str]:
    """Names of the parts that stand there."""
    return {part.name for part in store.parts(function)}
