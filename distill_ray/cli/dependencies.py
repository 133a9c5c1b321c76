"""Says so where what distill_ray depends on is not installed, as on a cluster that a job was shipped to.

Imports nothing but the standard library.
"""

from __future__ import annotations

import platform
import sys


def what_is_missing(error: ModuleNotFoundError) -> str:
    """A message that names the module, the Python that lacks it and the machine."""
    return (
        f"the module '{error.name}' is not installed for {sys.executable} on {platform.node()}. Where "
        "distill_ray was shipped with a job (`distill-ray submit`), what it depends on was not: install "
        "distill-ray on every node, as in the cluster's image."
    )
