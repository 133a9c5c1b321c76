"""What the steps of `noop.py` do to rows, and a bare loop of three Ray actors that does it.

The bare loop does the same work and writes the same Parquet, without signatures, digests, order, resume or
records.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 24 << 20
"""Bytes in memory that make a part of about 12 MB on disk: what the engine aims at as well."""

IN_FLIGHT = 4
"""Calls under way in each bare actor; measured to be the best of 1, 2, 4 and 16."""


def first_columns(number: int) -> dict[str, Any]:
    return {"number": number, "text": f"row number {number}"}


def small_column(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "length": len(row["text"])}


def large_column(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "payload": hashlib.shake_256(row["text"].encode()).hexdigest(512)}


STAGES = {"small": small_column, "large": large_column}
"""What the steps after the first do to a row."""


class BareActor:
    """Applies a function to rows, gathers tables and writes them as Parquet."""

    def __init__(self, work: Callable[[dict[str, Any]], dict[str, Any]] | None, folder: str) -> None:
        self._work = work
        self._folder = Path(folder)
        self._gathered: list[pa.Table] = []
        self._nbytes = 0
        self._parts = 0

    def ready(self) -> bool:
        return True

    def generate(self, start: int, end: int) -> tuple[pa.Table, bool]:
        return self._keep([first_columns(number) for number in range(start, end)])

    def apply(self, table: pa.Table, batch_size: int) -> tuple[pa.Table, bool]:
        assert self._work is not None
        rows = table.to_pylist()
        made: list[dict[str, Any]] = []
        for start in range(0, len(rows), batch_size):
            made.extend([self._work(row) for row in rows[start : start + batch_size]])
        return self._keep(made)

    def flush(self) -> bool:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._gathered:
            with (self._folder / f"{self._parts:05d}.parquet").open("wb") as file:
                pq.write_table(
                    pa.concat_tables(self._gathered),
                    file,
                    compression="zstd",
                    compression_level=3,
                    use_dictionary=False,
                    write_statistics=False,
                )
                file.flush()
                os.fsync(file.fileno())
            self._parts += 1
            self._gathered, self._nbytes = [], 0
        return True

    def _keep(self, rows: list[dict[str, Any]]) -> tuple[pa.Table, bool]:
        import pyarrow as pa

        table = pa.Table.from_pylist(rows)
        self._gathered.append(table)
        self._nbytes += table.nbytes
        if self._nbytes >= PART_BYTES:
            self.flush()
        return table, True


def run_bare(rows: int, batch_size: int, batches_a_call: int, root: str) -> None:
    import ray

    actor: Any = ray.remote(BareActor).options(num_cpus=0.1)
    folders = [Path(root, name) for name in ("numbers", "small", "large")]
    for folder in folders:
        folder.mkdir(parents=True)
    works = (None, small_column, large_column)
    numbers, small, large = (actor.remote(work, str(f)) for work, f in zip(works, folders, strict=True))
    in_flight: deque[Any] = deque()
    step = batch_size * batches_a_call
    for start in range(0, rows, step):
        table, _ = numbers.generate.options(num_returns=2).remote(start, min(rows, start + step))
        table, _ = small.apply.options(num_returns=2).remote(table, batch_size)
        table, done = large.apply.options(num_returns=2).remote(table, batch_size)
        in_flight.append(done)
        if len(in_flight) > IN_FLIGHT:
            ray.get(in_flight.popleft())
    ray.get(list(in_flight))
    ray.get([each.flush.remote() for each in (numbers, small, large)])
