"""Which files of a folder Ray copies to a cluster, and whether they are too many bytes for it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from distill_ray.errors import ParameterError

LEFT_OUT = (".git", ".venv", "venv", "__pycache__")
"""What is never shipped, at whatever depth; newer versions of Ray have the same list."""

_LISTED = 5
_MIB = 2**20


def check_size(folder: Path) -> None:
    """Refuse a folder that holds more than Ray ships, before anything is sent.

    What .gitignore and .rayignore in it name does not count.

    Raises:
        ParameterError: it holds more; names what is largest in it.
    """
    try:
        from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE, _dir_travel, _get_excludes
    except ImportError:  # another version of Ray: it refuses by itself, once all is sent
        return
    sizes: Counter[str] = Counter()

    def add(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size

    obey_gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    silent = logging.getLogger(__name__)
    _dir_travel(folder, [_get_excludes(folder, list(LEFT_OUT))], add, obey_gitignore, silent)
    if sizes.total() < GCS_STORAGE_MAX_SIZE:
        return
    largest = "".join(f"\n  {size / _MIB:,.0f} MiB  {name}" for name, size in sizes.most_common(_LISTED))
    raise ParameterError(
        f"{folder} holds {sizes.total() / _MIB:,.0f} MiB, and Ray ships less than "
        f"{GCS_STORAGE_MAX_SIZE / _MIB:,.0f} MiB with a job. The largest in it:{largest}\nList what steps do "
        "not need in .rayignore or .gitignore there, put data into a bucket, or keep the script in a folder "
        "of its own."
    )
