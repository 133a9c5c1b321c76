"""`Distiset`: what a run gives: leaf -> split -> data set."""

from __future__ import annotations

import math
import os
import random
from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from distill_ray.cache.manifest import Manifest
from distill_ray.cache.store import CacheStore
from distill_ray.distiset.dataset import Dataset
from distill_ray.distiset.origin import PipelineOrigin
from distill_ray.errors import ParameterError
from distill_ray.observe.report import RunReport

if TYPE_CHECKING:
    import datasets

DEFAULT_LEAF = "default"
"""The name of a single leaf."""


class Distiset(dict[str, dict[str, Dataset]]):
    """Leaf -> split -> data set; a single leaf is named ``"default"``, and each run gives ``"train"``::

        distiset = pipeline.run()
        distiset["default"]["train"][0]

    Attributes:
        report: the record of the run; an empty one where there was none.
        origin: the pipeline that the rows came from, where that is known.
    """

    report: RunReport
    origin: PipelineOrigin | None

    def __init__(
        self,
        leaves: Mapping[str, Mapping[str, Dataset]] | None = None,
        *,
        report: RunReport | None = None,
        origin: PipelineOrigin | None = None,
    ) -> None:
        super().__init__({leaf: dict(splits) for leaf, splits in (leaves or {}).items()})
        self.report = report or RunReport()
        self.origin = origin

    @classmethod
    def from_run(
        cls,
        store: CacheStore,
        leaves: Mapping[str, Manifest],
        report: RunReport,
        hidden: Iterable[str] = (),
        origin: PipelineOrigin | None = None,
    ) -> Distiset:
        """Hand out the leaves of a finished run; no row is read.

        Args:
            store: the cache that holds them.
            leaves: the complete outputs, by step.
            report: the record of the run.
            hidden: columns that are left out.
            origin: the pipeline.
        """
        hidden = tuple(hidden)
        named = {DEFAULT_LEAF if len(leaves) == 1 else step: manifest for step, manifest in leaves.items()}
        return cls(
            {
                leaf: {"train": Dataset.from_cache(store, manifest, leaf, hidden)}
                for leaf, manifest in named.items()
            },
            report=report,
            origin=origin,
        )

    def __missing__(self, leaf: str) -> NoReturn:
        raise KeyError(f"There is no leaf '{leaf}': there are {', '.join(map(repr, self)) or 'none'}.")

    def __repr__(self) -> str:
        leaves = {leaf: {split: len(rows) for split, rows in splits.items()} for leaf, splits in self.items()}
        return f"Distiset({leaves})"

    def in_memory(self) -> Distiset:
        """Read all rows, in place, for when their parts are about to go."""
        for splits in self.values():
            splits.update({split: dataset.in_memory() for split, dataset in splits.items()})
        return self

    def train_test_split(self, train_size: float, shuffle: bool = True, seed: int | None = None) -> Distiset:
        """Divide each leaf's ``"train"`` into ``"train"`` and ``"test"``, in place; no row is read.

        Of n rows, ``floor(train_size * n)`` stay in ``"train"``. Equal seeds divide equal numbers of rows
        equally, on every machine, but not as `datasets` does.

        Args:
            train_size: share of the rows, more than 0 and less than 1.
            shuffle: draw and order the rows at random; else the first ones are the ``"train"`` ones.
            seed: of the shuffling; without one each call gives another division.

        Returns:
            This Distiset.

        Raises:
            ParameterError: the size is out of range, or a leaf is divided already or has too few rows.
        """
        if not 0 < train_size < 1:
            raise ParameterError(f"`train_size` is a share of the rows, between 0 and 1, not {train_size!r}.")
        divided = {leaf: _divide(leaf, splits, train_size, shuffle, seed) for leaf, splits in self.items()}
        self.update(divided)
        return self

    def save_to_disk(
        self,
        distiset_path: str | os.PathLike[str],
        storage_options: Mapping[str, Any] | None = None,
        *,
        max_shard_size: int = 64 << 20,
        save_card: bool = True,
    ) -> None:
        """Write rows, card and record into a folder; `distill_ray.distiset.saving` has its layout.

        A save that stood there before stays whole until the new one is, then its files go; whoever still
        reads them must load again.

        Args:
            distiset_path: a folder, or any fsspec URL (``gs://bucket/folder``).
            storage_options: for the URL's file system; never written anywhere.
            max_shard_size: bytes of rows in a file, before they are compressed.
            save_card: write a data set card, ``README.md``, with which `datasets.load_dataset` reads it too.

        Raises:
            StorageError: the rows cannot be read, or the folder cannot be written.
        """
        from distill_ray.distiset.saving import save

        save(
            self,
            os.fspath(distiset_path),
            storage_options,
            max_shard_size=max_shard_size,
            save_card=save_card,
        )

    @classmethod
    def load_from_disk(
        cls, distiset_path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
    ) -> Distiset:
        """Open what `save_to_disk` wrote; rows are read when they are asked for.

        Args:
            distiset_path: the folder, or any fsspec URL.
            storage_options: for the URL's file system.

        Raises:
            StorageError: there is no complete save.
        """
        from distill_ray.distiset.saving import load

        return load(os.fspath(distiset_path), storage_options)

    def to_datasets(self) -> dict[str, datasets.DatasetDict]:
        """Give a `datasets.DatasetDict` for each leaf, in memory, with the types of `Dataset.to_arrow`.

        Raises:
            ImportError: datasets is not installed: ``pip install 'distill_ray[hf]'``.
        """
        from distill_ray.distiset.hub import to_datasets

        return to_datasets(self)

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        token: str | None = None,
        generate_card: bool = True,
        **kwargs: Any,
    ) -> None:
        """Upload the rows to the Hugging Face Hub: one configuration for each leaf, and a data set card.

        Args:
            repo_id: ``owner/name``.
            private: who may see a repository that is created now; one that exists stays as it is.
            token: of the Hub; by default the one you logged in with.
            generate_card: write the card, keeping the metadata of one that is there.
            **kwargs: for `datasets.DatasetDict.push_to_hub`, such as ``max_shard_size``.

        Raises:
            ImportError: datasets is not installed: ``pip install 'distill_ray[hf]'``.
            ParameterError: a leaf's name cannot be one of a configuration, or there are no rows.
        """
        from distill_ray.distiset.hub import push_to_hub

        push_to_hub(self, repo_id, private=private, token=token, generate_card=generate_card, **kwargs)


def _divide(
    leaf: str, splits: Mapping[str, Dataset], train_size: float, shuffle: bool, seed: int | None
) -> dict[str, Dataset]:
    if set(splits) != {"train"}:
        raise ParameterError(
            f"Leaf '{leaf}' has the splits {sorted(splits)}: only 'train' alone can be divided."
        )
    whole = splits["train"]
    count = math.floor(train_size * len(whole))
    if count == 0:
        raise ParameterError(
            f"Leaf '{leaf}' has {len(whole)} rows: with train_size={train_size} none is left for 'train'."
        )
    if not shuffle:
        return {"train": whole[:count], "test": whole[count:]}
    order = array("q", range(len(whole)))
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    return {"train": whole.select(order[:count]), "test": whole.select(order[count:])}
