"""A loader of rows from files: JSON lines, JSON, CSV and Parquet, on any URL that fsspec knows."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field

from distill_ray import storage
from distill_ray.credentials import shown
from distill_ray.errors import ParameterError, StorageError
from distill_ray.steps.base import GeneratorStep, label_of
from distill_ray.steps.loaders.readers import READERS, Skip
from distill_ray.types import GeneratorStepOutput, Row, RuntimeParameter, StepColumns, Unsigned

FileType: TypeAlias = Literal["jsonl", "json", "csv", "parquet"]

_EXTENSIONS: dict[str, FileType] = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "parquet": "parquet",
}
_COMPRESSIONS = frozenset({"gz", "bz2", "xz", "zst", "zip", "lz4"})


class LoadDataFromFileSystem(GeneratorStep):
    """Load rows from files, which are streamed and never held in memory whole.

    What counts for the signature is the files' content and order, not where they lie or when they were
    written. Values of a CSV file are texts. A JSON file holds an array of objects, or objects one after
    the other.

    Attributes:
        data_files: a path, a URL, a glob, a folder, or a list of these. Files of a glob or a folder are read
            in the order of their names.
        filetype: ``"jsonl"``, ``"json"``, ``"csv"`` or ``"parquet"``; taken from each file's name where not
            given. ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` at the end of a name are decompressed.
        storage_options: what the file system needs, such as credentials. Never part of the signature, nor
            of a saved pipeline.
        num_examples: rows to load; all where not given.
        streaming: accepted for distilabel's sake; files are always streamed.
    """

    data_files: Unsigned[RuntimeParameter[str | Path | list[str | Path]]]
    filetype: RuntimeParameter[FileType | None] = None
    storage_options: Unsigned[dict[str, Any] | None] = Field(default=None, repr=False, exclude=True)
    num_examples: RuntimeParameter[int | None] = Field(default=None, ge=1)
    streaming: Unsigned[RuntimeParameter[bool]] = True

    @property
    def outputs(self) -> StepColumns:
        """The columns of the first row, or of the first file's schema or heading."""
        if self.data_files is None:
            return []
        url = self._files()[0]
        return READERS[self._type_of(url)].columns(url, self.storage_options)

    def signed_state(self) -> dict[str, Any]:
        """Return what identifies the content of each file, in their order."""
        if self.data_files is None:
            return {}
        return {
            "files": [
                {"type": self._type_of(url), **storage.identity(url, self.storage_options)}
                for url in self._files()
            ]
        }

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield the files' rows from number ``offset`` on, and whether they are the last."""
        with closing(self._rows(offset)) as all_rows:
            wanted = None if self.num_examples is None else max(0, self.num_examples - offset)
            rows = islice(all_rows, wanted)
            batch = list(islice(rows, self.batch_size))
            while True:
                following = list(islice(rows, self.batch_size))
                yield batch, not following
                if not following:
                    return
                batch = following

    def _rows(self, offset: int) -> Generator[Row]:
        skip = Skip(offset)
        for url in self._files():
            yield from READERS[self._type_of(url)].rows(url, self.storage_options, skip)

    def _files(self) -> list[str]:
        if self.data_files is None:
            raise ParameterError(
                f"Step '{label_of(self)}' has no `data_files`: give a path, a URL or a glob."
            )
        given = self.data_files if isinstance(self.data_files, list) else [self.data_files]
        if not given:
            raise ParameterError(f"Step '{label_of(self)}': `data_files` is an empty list.")
        try:
            return [file for url in given for file in storage.expand(str(url), self.storage_options)]
        except StorageError as error:
            raise StorageError(f"Step '{label_of(self)}': {error}") from error

    def _type_of(self, url: str) -> FileType:
        if self.filetype is not None:
            return self.filetype
        suffixes = url.rsplit("/", 1)[-1].lower().split(".")[1:]
        while suffixes and suffixes[-1] in _COMPRESSIONS:
            suffixes.pop()
        filetype = _EXTENSIONS.get(suffixes[-1]) if suffixes else None
        if filetype is None:
            raise ParameterError(
                f"Step '{label_of(self)}' cannot tell the type of '{shown(url)}' from its name: give "
                f"`filetype`, one of {', '.join(READERS)}."
            )
        return filetype
