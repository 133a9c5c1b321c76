"""What a process says of where it runs: versions, credentials, and how the cache root answers it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from distill_ray import __version__
from distill_ray.cache.root_speed import RootSpeed, measure_root
from distill_ray.storage import Storage, credential_kinds, first_of, others_of


@dataclass(frozen=True)
class Inspection:
    """What was found in one process.

    Attributes:
        versions: of Python, Ray, pyarrow and distill_ray; ``-`` for what is not installed.
        credentials: the kinds that would be used for the root.
        disk_free: bytes that are free where Ray's files of this node stand, spilled objects among them.
        speed: how the root answers; None where it cannot be used.
        error: why it cannot; else empty.
    """

    versions: Mapping[str, str]
    credentials: tuple[str, ...]
    disk_free: int
    speed: RootSpeed | None
    error: str = ""


def inspect_here(storage: Storage) -> Inspection:
    """Look at this process, and at a root from it. What the root refuses is part of the answer.

    Args:
        storage: the root, or several, of which all but the first are only read.
    """
    speed, error = None, ""
    try:
        speed = measure_root(first_of(storage))
        for other in others_of(storage):
            other.folders("")
    except Exception as exception:
        error = str(exception)
    return Inspection(
        versions={
            "python": platform.python_version(),
            "ray": _version("ray"),
            "pyarrow": _version("pyarrow"),
            "distill_ray": __version__,
        },
        credentials=credential_kinds(storage.url),
        disk_free=shutil.disk_usage(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).free,
        speed=speed,
        error=error,
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "-"
