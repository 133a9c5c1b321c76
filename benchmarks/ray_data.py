"""The three stages of `noop.py` as Ray Data runs them, for comparison.

- ``batch``: what each stage makes of a batch is on the disk, and synced, before the next one goes on: a block
  for each batch, and a Parquet file for each batch and stage. What is killed loses a batch.
- ``own``: Ray Data chooses its blocks and joins the stages into one task each; only what the last one makes
  is written, by ``write_parquet``. What is killed starts again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Work = Callable[[dict[str, Any]], dict[str, Any]]


def run_by_batches(rows: int, batch_size: int, stages: dict[str, Work], root: str) -> int:
    """Run with a block for each batch; returns the rows that came out."""
    data = _range(rows, override_num_blocks=-(-rows // batch_size))
    for name, work in stages.items():
        folder = Path(root, name)
        folder.mkdir(parents=True)
        data = data.map_batches(_writing(work, folder), batch_size=None, batch_format="pyarrow")
    return sum(table.num_rows for table in data.iter_batches(batch_size=None, batch_format="pyarrow"))


def run_with_own_blocks(rows: int, batch_size: int, stages: dict[str, Work], root: str) -> int:
    """Run with the blocks that Ray Data chooses; returns the rows that came out."""
    data = _range(rows)
    for work in stages.values():
        data = data.map_batches(_applying(work), batch_size=batch_size, batch_format="pyarrow")
    data.write_parquet(root, compression="zstd")
    return sum(pq.read_metadata(file).num_rows for file in Path(root).glob("*.parquet"))


def _range(rows: int, **options: Any) -> Any:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray.data.range(rows, **options)


def _applied(work: Work, table: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([work(row) for row in table.to_pylist()])


def _applying(work: Work) -> Callable[[pa.Table], pa.Table]:
    def stage(table: pa.Table) -> pa.Table:
        return _applied(work, table)

    return stage


def _writing(work: Work, folder: Path) -> Callable[[pa.Table], pa.Table]:
    def stage(table: pa.Table) -> pa.Table:
        made = _applied(work, table)
        with (folder / f"{os.urandom(8).hex()}.parquet").open("wb") as file:
            pq.write_table(made, file, compression="zstd", use_dictionary=False, write_statistics=False)
            file.flush()
            os.fsync(file.fileno())
        return made

    return stage
