"""Whether a root's storage really creates an object only where there is none: tried, not believed."""

from __future__ import annotations

import secrets

from distill_ray.cache import paths
from distill_ray.storage import Storage

_KNOWN: dict[str, bool] = {}


def creates_exclusively(storage: Storage) -> bool:
    """Whether `Storage.put_if_absent` lets exactly one of several writers win on this storage.

    Some file systems of fsspec ignore that an object is only to be created, and some disks have no hard
    links: there the last writer wins, which is right for manifests and useless for leases. Writes a small
    object twice and removes it, once for each root in a process: for runs that are about to write, since only
    they need to know.

    Raises:
        StorageError: the storage cannot be written to.
    """
    if storage.url not in _KNOWN:
        _KNOWN[storage.url] = _try(storage, paths.probe(secrets.token_hex(16)))
    return _KNOWN[storage.url]


def _try(storage: Storage, path: str) -> bool:
    try:
        return (
            storage.put_if_absent(path, b"first")
            and not storage.put_if_absent(path, b"second")
            and storage.read(path) == b"first"
        )
    finally:
        storage.delete([path])
