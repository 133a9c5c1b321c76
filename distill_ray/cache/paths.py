"""Where everything stands under a cache root. No other module makes up a folder or the ending of a name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

FORMAT_VERSION = 2

FORMAT_FILE = "format.json"

PART_ENDING = ".parquet"

RECORD_ENDING = ".json"

NOTE_OPENING = "_used."
"""Of notes that stand beside the parts of a leaf (`distill_ray.cache.use_notes`): tools that read a folder of
Parquet files pass over names like these."""

STEPS_FOLDER = "steps"

PIPELINES_FOLDER = "pipelines"

RUNS_FOLDER = "runs"

LEASES_FOLDER = "leases"

_SCOPES_FOLDER = "scopes"

_SALTED_FOLDER = "salted"

SUBROOT_FOLDERS = (_SCOPES_FOLDER, _SALTED_FOLDER)
"""What stands in these is, folder by folder, a root of its own."""

CONDEMNED_FOLDER = "gc"
"""Records of what is to be removed once no run can believe in it any more."""

SIGNATURE_FILE = "signature.json"
"""In a function's folder: what its signature was made from."""

RUN_FILE = "run.json"
"""In a run's folder: its record."""

HEARTBEAT_FILE = "heartbeat.json"
"""In a run's folder: where it shows that it lives."""


@dataclass(frozen=True)
class FunctionId:
    """Names a step function: the class's bare name, for the reader, and its signature, which decides."""

    class_name: str
    signature: str

    @property
    def folder(self) -> str:
        """All that is known of the function."""
        return f"{STEPS_FOLDER}/{safe_name(self.class_name)}-{safe_name(self.signature)}"

    @property
    def signature_file(self) -> str:
        """What its signature was made from."""
        return f"{self.folder}/{SIGNATURE_FILE}"

    @property
    def parts_folder(self) -> str:
        """Where its parts stand."""
        return f"{self.folder}/parts"

    def part(self, name: str) -> str:
        """One part, by its name."""
        return f"{self.parts_folder}/{name}{PART_ENDING}"

    @property
    def outputs_folder(self) -> str:
        """Where the manifests of its outputs stand."""
        return f"{self.folder}/outputs"

    def manifest(self, output_key: str) -> str:
        """The manifest of the output with this key."""
        return f"{self.outputs_folder}/{safe_name(output_key)}{RECORD_ENDING}"


def function_in(folder: str) -> FunctionId | None:
    """Name the function of this folder, right below ``steps``; None where its class's name was changed."""
    class_name, _, signature = folder.rpartition("-")
    function = FunctionId(class_name, signature)
    return function if function.folder == f"{STEPS_FOLDER}/{folder}" else None


def signature_file_in(folder: str) -> str:
    """What the signature of the function in this folder, right below ``steps``, was made from."""
    return f"{STEPS_FOLDER}/{folder}/{SIGNATURE_FILE}"


def run_outputs_folder(run: str) -> str:
    """Where the manifests of outputs stand that lack rows which failed in a run."""
    return f"{run_folder(run)}/outputs"


def run_output(run: str, output_key: str) -> str:
    """Where the manifest of an output stands that lacks rows which failed: no other run may believe it."""
    return f"{run_outputs_folder(run)}/{safe_name(output_key)}{RECORD_ENDING}"


def pipeline_folder(name: str) -> str:
    """Where the records of a pipeline stand."""
    return f"{PIPELINES_FOLDER}/{safe_name(name)}"


def pipeline_record(name: str, signature: str, aggregated: str) -> str:
    """Where the record of a finished pipeline stands."""
    return f"{pipeline_folder(name)}/{safe_name(signature)}/{safe_name(aggregated)}{RECORD_ENDING}"


def latest_record(name: str) -> str:
    """Where it stands which steps the last run of a pipeline had, whatever became of it."""
    return f"{pipeline_folder(name)}/latest.json"


def finished_record(name: str) -> str:
    """Where it stands which steps the last run of a pipeline had that finished."""
    return f"{pipeline_folder(name)}/finished.json"


def scope_folder(pipeline: str) -> str:
    """Where what a pipeline keeps to itself stands: a root of its own."""
    return f"{_SCOPES_FOLDER}/{_caseless_name(pipeline)}"


def salted_folder(salt: str) -> str:
    """Where everything stands while the root has this salt: a root of its own."""
    return f"{_SALTED_FOLDER}/{hashlib.sha256(salt.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def is_salted(place: str) -> bool:
    """Whether a root within a root is one of a salt, or stands in such a one."""
    return place.startswith(f"{_SALTED_FOLDER}/")


def probe(name: str) -> str:
    """An object that is written to see what the storage does, and removed."""
    return f"probes/{safe_name(name)}"


def condemned_record(name: str) -> str:
    """Where it stands what a collection is about to remove."""
    return f"{CONDEMNED_FOLDER}/{safe_name(name)}{RECORD_ENDING}"


def run_folder(run: str) -> str:
    """Where a run's record and events stand."""
    return f"{RUNS_FOLDER}/{safe_name(run)}"


def heartbeat(run: str) -> str:
    """Where a run shows that it lives."""
    return f"{run_folder(run)}/{HEARTBEAT_FILE}"


def lease(output_key: str, epoch: int) -> str:
    """Where it stands who computes an output, or did before a later epoch."""
    return f"{LEASES_FOLDER}/{safe_name(output_key)}.{epoch}"


def split_lease(name: str) -> tuple[str, int] | None:
    """Take a lease's name apart: how its output is called there, and the epoch; None for another file."""
    output, _, epoch = name.rpartition(".")
    return (output, int(epoch)) if output and re.fullmatch(r"[1-9][0-9]{0,17}", epoch) else None


_WAITING = ".waiting."


def waiting(output_key: str, run: str) -> str:
    """Where it stands that a run waits for an output that another one computes: named as leases are."""
    return f"{LEASES_FOLDER}/{safe_name(output_key)}{_WAITING}{safe_name(run)}.1"


def awaited_output(name: str) -> str | None:
    """How the output that such a run waits for is called in leases; None for another file."""
    output, waiting, _ = name.partition(_WAITING)
    return output if waiting else None


_MAX_LENGTH = 80


def safe_name(name: str) -> str:
    """A user's name as one harmless path element; names that had to be changed keep a digest, to differ."""
    if is_safe_name(name) and len(name) <= _MAX_LENGTH:
        return name
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:_MAX_LENGTH].lstrip(".")
    return f"{plain}~{_digest(name)}"


def _caseless_name(name: str) -> str:
    """As `safe_name`, and different where disks see no difference between capitals and small letters."""
    element = safe_name(name)
    if element == element.lower() or "~" in element:
        return element
    return f"{element}~{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def is_safe_name(name: str) -> bool:
    """Whether a name can be a path element as it is."""
    return re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name) is not None
