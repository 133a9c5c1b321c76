"""The cache root as the engine sees it: manifests, parts and records by their names, over a storage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson
import pyarrow as pa

from distill_ray.cache import paths
from distill_ray.cache.manifest import Manifest, PartEntry
from distill_ray.cache.part import check_footer, decode_index, decode_part, encode_part, footer_size
from distill_ray.cache.paths import PART_ENDING, FunctionId, is_safe_name
from distill_ray.cache.root_settings import RootSettings, claim
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.errors import CorruptObjectError, StorageError
from distill_ray.storage import Storage, first_of

READERS = 16
"""Threads that fetch small objects at once: an object store answers in tens of milliseconds."""

TAIL = 64 * 1024
"""Bytes at a part's end that are fetched first: most footers fit."""


@dataclass(frozen=True)
class CacheStore:
    """Reads and writes the objects of one cache root.

    Attributes:
        storage: where the objects are.
        settings: those of the root.
        home: the root whose settings these are, where ``storage`` is a part of it or several together.
        claimed: whether the root was one of our format when it was opened.
    """

    storage: Storage
    settings: RootSettings = field(default_factory=RootSettings, hash=False)
    home: Storage | None = None
    claimed: bool = False

    @property
    def own(self) -> Storage:
        """The root that is written to, where several are read."""
        return first_of(self.storage)

    def claim(self) -> None:
        """Mark an empty root as one of our format, before anything else is written to it.

        Raises:
            FormatVersionError: another format was quicker.
        """
        if not self.claimed:
            claim(self.home or self.storage)

    def read_manifest(self, function: FunctionId, output_key: str) -> Manifest | None:
        """Return the manifest of an output if it is complete, else None.

        Raises:
            CorruptObjectError: there is one, but it cannot be read.
        """
        path = function.manifest(output_key)
        try:
            data = self.storage.read(path)
        except FileNotFoundError:
            return None
        manifest = Manifest.from_json(data, f"{self.storage.url}/{path}")
        if manifest.output_key != output_key or manifest.function != function:
            raise CorruptObjectError(f"{self.storage.url}/{path} is the manifest of another output.")
        return manifest

    def write_manifest(self, manifest: Manifest, *, replace: bool) -> Manifest:
        """Publish a complete output.

        Without ``replace`` the first one written stays, and is returned, as long as it can be believed.
        """
        path = manifest.function.manifest(manifest.output_key)
        if not replace:
            if self.storage.put_if_absent(path, manifest.to_json()):
                return manifest
            with suppress(CorruptObjectError):  # a damaged one is replaced
                first = self.read_manifest(manifest.function, manifest.output_key)
                if first is not None and not self.missing_parts(first):
                    return first
        self.storage.publish(path, manifest.to_json())
        return manifest

    def write_run_manifest(self, run: str, manifest: Manifest) -> None:
        """Keep an output that lacks rows which failed, for this run only."""
        self.storage.publish(paths.run_output(run, manifest.output_key), manifest.to_json())

    def missing_parts(self, manifest: Manifest) -> list[str]:
        """Names of the manifest's parts that are absent or have another size: one listing."""
        if not manifest.parts:
            return []
        return missing_among(self.storage.sizes(manifest.function.parts_folder), manifest)

    def parts(self, function: FunctionId) -> list[PartEntry]:
        """All parts that any run left of this function: one listing. Other files are passed over."""
        return parts_among(self.storage.sizes(function.parts_folder))

    def read_indexes(
        self, function: FunctionId, parts: Sequence[PartEntry]
    ) -> list[tuple[PartEntry, UnitIndex]]:
        """Read the unit indexes of several parts at once; parts that are gone or damaged are left out."""
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda part: self.read_index(function, part), parts)
            return [(part, index) for part, index in zip(parts, found, strict=True) if index is not None]

    def read_index(self, function: FunctionId, part: PartEntry) -> UnitIndex | None:
        """Read the unit index of a part; None where it is gone or damaged."""
        try:
            tail = self.read_footer(function, part)
        except CorruptObjectError:
            return None
        try:
            return decode_index(tail)
        except StorageError:  # of a version to come: as if it were not there
            return None

    def damage(self, function: FunctionId, part: PartEntry) -> str:
        """Say what is wrong with a part whose index cannot be read; nothing where it is gone, or whole."""
        try:
            self.read_footer(function, part)
        except CorruptObjectError as error:
            return "" if isinstance(error.__cause__, FileNotFoundError) else str(error)
        return ""

    def read_footer(self, function: FunctionId, part: PartEntry) -> bytes:
        """Read a part's last bytes, its footer among them.

        Raises:
            CorruptObjectError: it is gone, or not what was written.
        """
        path = function.part(part.name)
        try:
            tail = read_footer(self.storage, path, part.size)
            _check_name(function, part.name, tail)
        except FileNotFoundError as error:
            raise CorruptObjectError(f"The part {self.storage.url}/{path} is gone.") from error
        except CorruptObjectError as error:
            raise CorruptObjectError(f"The part {self.storage.url}/{path} is damaged: {error}.") from error
        return tail

    def read_part(self, function: FunctionId, name: str) -> tuple[pa.Table, UnitIndex]:
        """Read a part whole.

        One that is not what was written is removed: whatever run needs its rows computes them again.

        Raises:
            CorruptObjectError: it is gone, or not what was written.
            StorageError: it cannot be read.
        """
        path = function.part(name)
        place = f"{self.storage.url}/{path}"
        try:
            with suppress(CorruptObjectError):  # a fault on the way is no reason to remove anything
                return self._read_once(function, name)
            return self._read_once(function, name)
        except FileNotFoundError as error:
            if (merged := self._read_merged(function, name)) is not None:
                return merged
            raise CorruptObjectError(f"The part {place} is gone.") from error
        except CorruptObjectError as error:
            raise CorruptObjectError(f"The part {place} is damaged: {error}. {self._remove(path)}") from error

    def _read_once(self, function: FunctionId, name: str) -> tuple[pa.Table, UnitIndex]:
        data = self.storage.read(function.part(name))
        try:
            decoded = decode_part(data)
        except CorruptObjectError:
            raise
        except StorageError as error:
            raise StorageError(
                f"The part {self.storage.url}/{function.part(name)} is whole, but {error}. Use the version "
                "that wrote it, or remove it: then its rows are computed again."
            ) from error
        _check_name(function, name, data)
        return decoded

    def _read_merged(self, function: FunctionId, name: str) -> tuple[pa.Table, UnitIndex] | None:
        """Read a part that another run has merged into a larger one in the meantime."""
        for part, index in self.read_indexes(function, self.parts(function)):
            if (found := index.of_replaced(name)) is not None:
                table, _ = self.read_part(function, part.name)
                return table.slice(found[0], found[1].rows), found[1]
        return None

    def _remove(self, path: str) -> str:
        """Remove what is damaged, and say so."""
        try:
            self.storage.delete([path])
        except StorageError as error:
            return f"It could not be removed ({error}): remove it."
        return "It was removed."

    def write_part(self, function: FunctionId, stem: str, table: pa.Table, index: UnitIndex) -> PartEntry:
        """Encode and publish a part under a name nobody knows yet: the stem, and a digest of what it is."""
        data = encode_part(table, index)
        name = stem + _name_ending(function, data)
        self.storage.publish(function.part(name), data)
        return PartEntry(name, len(data))

    def delete_parts(self, function: FunctionId, names: Iterable[str]) -> None:
        """Remove parts that nothing refers to."""
        self.storage.delete(function.part(name) for name in names)

    def write_preimage(self, function: FunctionId, preimage: Any, code: Mapping[str, str]) -> None:
        """Keep what the function's signature was made from, for `explain`."""
        record = {"class": function.class_name, "preimage": preimage, "code": dict(code)}
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))  # of any depth, unlike orjson
        self.storage.put_if_absent(function.signature_file, text.encode())

    def write_record(self, path: str, record: Mapping[str, Any]) -> None:
        """Write what is remembered of a pipeline, in place of what stands there."""
        self.storage.publish(path, orjson.dumps(record))

    def write_run_file(self, run: str, name: str, data: bytes) -> None:
        """Write a file into a run's folder."""
        self.storage.publish(f"{paths.run_folder(run)}/{name}", data)


def parts_among(sizes: Mapping[str, int]) -> list[PartEntry]:
    """The parts among what stands in a folder, by name."""
    names = sorted(name for name in sizes if name.endswith(PART_ENDING) and is_safe_name(name))
    return [PartEntry(name.removesuffix(PART_ENDING), sizes[name]) for name in names]


def missing_among(sizes: Mapping[str, int], manifest: Manifest) -> list[str]:
    """Names of the manifest's parts that do not stand in its function's folder, or have another size."""
    return [part.name for part in manifest.parts if sizes.get(part.name + PART_ENDING) != part.size]


def read_footer(storage: Storage, path: str, size: int) -> bytes:
    """Read the last bytes of a Parquet file of this size, its footer among them.

    Raises:
        FileNotFoundError: there is none.
        CorruptObjectError: this is not the end of one.
    """
    tail = storage.read_tail(path, TAIL)
    if len(tail) < footer_size(tail) <= size:
        tail = storage.read_tail(path, footer_size(tail))
    return tail


def _check_name(function: FunctionId, name: str, tail: bytes) -> None:
    """See that the part with these last bytes is the one that has this name, and this function's."""
    if not name.endswith(_name_ending(function, tail)):
        raise CorruptObjectError("it is another part under this name")


def _name_ending(function: FunctionId, tail: bytes) -> str:
    """What a part's name ends with: 128 bits of a digest of its function and of its last bytes' content."""
    return f"-{sha256(f'{function.signature} {check_footer(tail)}'.encode()).hexdigest()[:32]}"
