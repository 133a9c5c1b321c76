"""Where bytes are: the URLs that users read from, and the storage that the cache is kept on.

Nothing else in distill_ray uses fsspec.
"""

from __future__ import annotations

from distill_ray.storage.credential_kinds import credential_kinds
from distill_ray.storage.layered import LayeredStorage, first_of, others_of
from distill_ray.storage.local import LocalStorage
from distill_ray.storage.objects import ObjectStorage
from distill_ray.storage.protocol import Storage
from distill_ray.storage.read_only import ReadOnlyStorage
from distill_ray.storage.root import is_shared, open_storage
from distill_ray.storage.urls import expand, identity, open_url

__all__ = [
    "LayeredStorage",
    "LocalStorage",
    "ObjectStorage",
    "ReadOnlyStorage",
    "Storage",
    "credential_kinds",
    "expand",
    "first_of",
    "identity",
    "is_shared",
    "open_storage",
    "open_url",
    "others_of",
]
