"""Removing what is of no use any more: where the storage refuses, that is no reason to end a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from distill_ray.errors import StorageError

_log = logging.getLogger(__name__)


@contextmanager
def tidying(what: str) -> Iterator[None]:
    """Go on where the storage fails meanwhile: nobody's rows depend on it, and gc removes what is left."""
    try:
        yield
    except StorageError as error:
        _log.warning("%s could not be removed: `distill-ray cache gc` will do so. %s", what, error)
