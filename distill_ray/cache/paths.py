"""The name of everything on disk, relative to the cache root. No other module makes one up."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

FORMAT_VERSION = 1

FORMAT_FILE = "format.json"


@dataclass(frozen=True)
class FunctionId:
    """Names a step function: the class's bare name, for the reader, and its signature, which decides."""

    class_name: str
    signature: str

    @property
    def folder(self) -> str:
        return f"steps/{safe_name(self.class_name)}-{self.signature}"

    @property
    def signature_file(self) -> str:
        return f"{self.folder}/signature.json"

    @property
    def parts_folder(self) -> str:
        return f"{self.folder}/parts"

    def part(self, name: str) -> str:
        return f"{self.parts_folder}/{name}.parquet"

    def manifest(self, output_key: str) -> str:
        return f"{self.folder}/outputs/{output_key}.json"


def pipeline_record(name: str, signature: str, aggregated: str) -> str:
    """Where the record of a finished pipeline stands."""
    return f"pipelines/{safe_name(name)}/{signature}/{aggregated}.json"


def run_folder(run: str) -> str:
    """Where a run's record and events stand."""
    return f"runs/{safe_name(run)}"


def safe_name(name: str) -> str:
    """A user's name as one harmless path element; names that had to be changed keep a digest, to differ."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:80].lstrip(".")
    if plain == name:
        return plain
    return f"{plain}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
