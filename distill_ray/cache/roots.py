"""Opens what a run is given as its cache: one root or several, in one of their folders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from distill_ray.cache import paths
from distill_ray.cache.root_settings import RootSettings, open_root
from distill_ray.cache.store import CacheStore
from distill_ray.storage import LayeredStorage, ReadOnlyStorage, Storage


def open_cache(roots: Sequence[Storage], scope: str | None = None) -> CacheStore:
    """Open cache roots: all are read, in this order, and the first is written to.

    Args:
        roots: one at least; each has a salt of its own, and the aliases of all of them count.
        scope: the pipeline that keeps its outputs to itself; None for those that share them.

    Raises:
        FormatVersionError: the format of one of them is not ours.
    """
    opened = [open_root(root) for root in roots]
    settings = reduce(RootSettings.before, (each for _, each, _ in opened))
    storage, *others = (each for each, _, _ in opened)
    if others:
        storage = LayeredStorage(storage, tuple(ReadOnlyStorage(each) for each in others))
    if scope is not None:
        storage = storage.below(paths.scope_folder(scope))
    return CacheStore(storage, settings, home=roots[0], claimed=opened[0][2])
