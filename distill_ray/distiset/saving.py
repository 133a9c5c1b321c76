"""A Distiset in a folder, on any fsspec URL: Parquet files for everyone, and what brings it back exactly.

    README.md       the data set card; its header lists each leaf's files for `datasets.load_dataset`
    data/<leaf>/<split>-<n>-<digest>.parquet
    distiset.json   leaves, splits and their files, pipeline and record: written last

The files of a split have one schema. A column that no single Arrow type holds exactly is JSON text, so marked
in its field's metadata (see `distill_ray.distiset.columns`). Without ``distiset.json`` there is no save; it
names every file with its size and digest, and files of another content have other names: neither a save that
was cut short nor one that is being written over another is ever taken for a whole one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from distill_ray import __version__
from distill_ray.cache.manifest import Segment
from distill_ray.cache.paths import safe_name
from distill_ray.distiset.card import saved_card
from distill_ray.distiset.columns import conform
from distill_ray.distiset.dataset import Dataset
from distill_ray.distiset.distiset import Distiset
from distill_ray.distiset.origin import PipelineOrigin
from distill_ray.distiset.parts import SavedFile, SavedParts
from distill_ray.distiset.rows import RowsInParts
from distill_ray.errors import CorruptObjectError, FormatVersionError, StorageError
from distill_ray.observe.report import RunReport
from distill_ray.storage import Storage, open_storage

FORMAT_VERSION: Final = 1

INDEX: Final = "distiset.json"

CARD: Final = "README.md"

Files = Mapping[str, Mapping[str, list[SavedFile]]]
"""Leaf -> split -> files."""


def save(
    distiset: Distiset,
    path: str,
    storage_options: Mapping[str, Any] | None,
    *,
    max_shard_size: int,
    save_card: bool,
) -> None:
    """Write a Distiset into a folder."""
    storage = open_storage(path, storage_options)
    before = _files_before(storage)
    files = {
        leaf: {
            split: list(
                _write_split(storage, f"data/{safe_name(leaf)}/{safe_name(split)}", rows, max_shard_size)
            )
            for split, rows in splits.items()
        }
        for leaf, splits in distiset.items()
    }
    if save_card:
        storage.publish(CARD, saved_card(distiset, _paths(files)).encode("utf-8", "backslashreplace"))
    storage.publish(INDEX, _index(distiset, files))
    now = {file.path for splits in files.values() for each in splits.values() for file in each}
    storage.delete(sorted(before - now))


def load(path: str, storage_options: Mapping[str, Any] | None) -> Distiset:
    """Open a folder that `save` wrote."""
    storage = open_storage(path, storage_options)
    record = _read_index(storage)
    where = f"{storage.url}/{INDEX}"
    try:
        leaves = {
            leaf: {split: _open_split(storage, leaf, saved) for split, saved in splits.items()}
            for leaf, splits in record["leaves"].items()
        }
        report, origin = record["report"], record["pipeline"]
        return Distiset(
            leaves,
            report=None if report is None else RunReport.model_validate(report),
            origin=None if origin is None else PipelineOrigin.model_validate(origin),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptObjectError(
            f"{where} is not what was written: {error}. Save the Distiset again."
        ) from error


def _write_split(storage: Storage, stem: str, dataset: Dataset, max_bytes: int) -> Iterator[SavedFile]:
    """Write files of about so many bytes of rows; at least one, so that the columns are known."""
    schema = dataset.uniform_schema()
    held: list[pa.Table] = []
    number = 0
    for piece in _pieces(dataset, schema, max_bytes):
        if held and sum(table.nbytes for table in held) + piece.nbytes > max_bytes:
            yield _write_file(storage, f"{stem}-{number:05d}", pa.concat_tables(held))
            held, number = [], number + 1
        held.append(piece)
    yield _write_file(storage, f"{stem}-{number:05d}", pa.concat_tables(held or [schema.empty_table()]))


def _pieces(dataset: Dataset, schema: pa.Schema, max_bytes: int) -> Iterator[pa.Table]:
    for table in dataset.tables():
        whole = conform(table, schema)
        rows = max(1, whole.num_rows * max_bytes // max(1, whole.nbytes))
        for start in range(0, whole.num_rows, rows):
            yield whole.slice(start, rows)


def _write_file(storage: Storage, stem: str, table: pa.Table) -> SavedFile:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue()
    digest = sha256(data).hexdigest()
    path = f"{stem}-{digest[:16]}.parquet"
    storage.publish(path, data)
    return SavedFile(path, table.num_rows, len(data), digest)


def _index(distiset: Distiset, files: Files) -> bytes:
    record = {
        "format": FORMAT_VERSION,
        "distill_ray": __version__,
        "leaves": {
            leaf: {
                split: {
                    "rows": len(dataset),
                    "columns": dataset.column_names,
                    "files": [asdict(file) for file in files[leaf][split]],
                }
                for split, dataset in splits.items()
            }
            for leaf, splits in distiset.items()
        },
        "pipeline": distiset.origin.model_dump(mode="json") if distiset.origin else None,
        "report": distiset.report.model_dump(mode="json") if distiset.report.run else None,
    }
    return orjson.dumps(record, option=orjson.OPT_INDENT_2)


def _read_index(storage: Storage) -> dict[str, Any]:
    where = f"{storage.url}/{INDEX}"
    try:
        record = orjson.loads(storage.read(INDEX))
    except FileNotFoundError as error:
        raise StorageError(
            f"There is no complete save of a Distiset at {storage.url}: it has no {INDEX}, which is written "
            "last. Look at the path, or save the Distiset again."
        ) from error
    except ValueError as error:
        raise CorruptObjectError(f"{where} is not JSON: {error}. Save the Distiset again.") from error
    version = record.get("format") if isinstance(record, dict) else None
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{where} has the format {version!r}; this version of distill_ray reads format {FORMAT_VERSION}. "
            "Read it with the version that wrote it; its Parquet files can be read with any tool."
        )
    return dict(record)


def _open_split(storage: Storage, leaf: str, saved: Mapping[str, Any]) -> Dataset:
    files = [SavedFile(**file) for file in saved["files"]]
    segments = [Segment(number, 0, file.rows) for number, file in enumerate(files)]
    if sum(file.rows for file in files) != saved["rows"]:
        raise ValueError(f"the files of leaf '{leaf}' do not add up to {saved['rows']} rows")
    return Dataset(RowsInParts(SavedParts(storage, files, leaf), segments, saved["columns"]))


def _files_before(storage: Storage) -> set[str]:
    """The files of a save that stands there already."""
    try:
        record = _read_index(storage)
        return {
            file["path"]
            for splits in record["leaves"].values()
            for saved in splits.values()
            for file in saved["files"]
        }
    except (StorageError, LookupError, TypeError, AttributeError):
        return set()  # there is none that could be loaded: what lies there is left alone


def _paths(files: Files) -> dict[str, dict[str, list[str]]]:
    return {
        leaf: {split: [file.path for file in each] for split, each in splits.items()}
        for leaf, splits in files.items()
    }
