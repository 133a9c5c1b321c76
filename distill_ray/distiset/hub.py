"""To Hugging Face: a Distiset as `datasets.DatasetDict`s, and on the Hub with a data set card."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from distill_ray.distiset.card import hub_card, metadata
from distill_ray.distiset.export import to_arrow
from distill_ray.errors import ParameterError

if TYPE_CHECKING:
    import datasets

    from distill_ray.distiset.distiset import Distiset

_NO_CONFIGURATION = re.compile(r'[<>:/\\|?*"]|^data$')


def to_datasets(distiset: Distiset) -> dict[str, datasets.DatasetDict]:
    """Give a `datasets.DatasetDict` for each leaf; the splits of a leaf have the same features."""
    library = _datasets("to_datasets")
    found = {}
    for leaf, splits in distiset.items():
        tables = to_arrow(list(splits.values()))
        found[leaf] = library.DatasetDict(
            {
                split: library.Dataset(library.table.InMemoryTable(table.combine_chunks()))
                for split, table in zip(splits, tables, strict=True)
            }
        )
    return found


def push_to_hub(
    distiset: Distiset, repo_id: str, *, private: bool, token: str | None, generate_card: bool, **kwargs: Any
) -> None:
    """Upload each leaf as a configuration, then the card."""
    _datasets("push_to_hub")
    if kwargs.get("create_pr"):
        raise ParameterError(
            "`push_to_hub` makes a commit for each leaf and one for the card, which `create_pr` would tear "
            "apart: upload to a branch with `revision=`, and open one pull request from it."
        )
    filled = _pushed(distiset)
    for leaf, splits in to_datasets(filled).items():
        commit = splits.push_to_hub(repo_id, config_name=leaf, private=private, token=token, **kwargs)
    if generate_card:
        _push_card(filled, commit.repo_url.repo_id, token, revision=kwargs.get("revision"))


def _pushed(distiset: Distiset) -> Distiset:
    """The leaves that can be uploaded, those with a column.

    Raises:
        ParameterError: there is none, or the Hub would not have a leaf's name.
    """
    for leaf in distiset:
        if _NO_CONFIGURATION.search(leaf):
            raise ParameterError(
                f"The Hub takes no configuration named '{leaf}': give the step another `name`, or rename the "
                f"leaf: distiset['other'] = distiset.pop('{leaf}')."
            )
    filled = type(distiset)(
        {
            leaf: splits
            for leaf, splits in distiset.items()
            if any(dataset.column_names for dataset in splits.values())
        },
        report=distiset.report,
        origin=distiset.origin,
    )
    if not filled:
        raise ParameterError("There is nothing to upload: no leaf of the Distiset has a column.")
    return filled


def _push_card(distiset: Distiset, repo_id: str, token: str | None, revision: str | None) -> None:
    """Write the card, with the header that `datasets` wrote into the one that is there."""
    from huggingface_hub import DatasetCard, hf_hub_download

    written = hf_hub_download(repo_id, "README.md", repo_type="dataset", token=token, revision=revision)
    card = DatasetCard(Path(written).read_text(encoding="utf-8"))
    for name, value in metadata(distiset).items():
        known = getattr(card.data, name, None) or []
        setattr(card.data, name, list(dict.fromkeys([*known, *value])) if name == "tags" else value)
    card.text = hub_card(distiset, repo_id)
    card.push_to_hub(repo_id, repo_type="dataset", token=token, revision=revision)


def _datasets(what: str) -> ModuleType:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise ImportError(f"`{what}` needs datasets: pip install 'distill_ray[hf]'") from error
