"""The data set card: what a reader is told. Names, counts and one row of each leaf; no parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import yaml

from distill_ray.cache.paths import safe_name
from distill_ray.distiset.origin import PipelineOrigin
from distill_ray.types import Row

if TYPE_CHECKING:
    from distill_ray.distiset.dataset import Dataset
    from distill_ray.distiset.distiset import Distiset

TAGS: Final = ("synthetic", "distill_ray")

_MAX_TEXT: Final = 1_000
"""Characters of a text in the sample row."""

_MAX_ITEMS: Final = 10
"""Items of a list in the sample row."""


def saved_card(distiset: Distiset, files: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """The card of a folder, as text with a YAML header.

    Args:
        distiset: the rows.
        files: leaf -> split -> paths, relative to the card.
    """
    header = {
        "configs": [
            {
                "config_name": safe_name(leaf),
                "data_files": [{"split": split, "path": list(paths)} for split, paths in files[leaf].items()],
            }
            for leaf, splits in distiset.items()
            if any(dataset.column_names for dataset in splits.values())
        ],
        **metadata(distiset),
    }
    name = distiset.origin.name if distiset.origin else "Distiset"
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n{_body(distiset, name, None)}"


def hub_card(distiset: Distiset, repo_id: str) -> str:
    """The card's text for a repository of the Hugging Face Hub, without a header."""
    return _body(distiset, repo_id.rsplit("/", 1)[-1], repo_id)


def metadata(distiset: Distiset) -> dict[str, Any]:
    """What belongs into the header of every card."""
    rows = sum(len(dataset) for splits in distiset.values() for dataset in splits.values())
    return {"size_categories": [size_category(rows)], "tags": list(TAGS)}


def size_category(rows: int) -> str:
    """The Hub's word for so many rows."""
    limits = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    for number, limit in enumerate(limits):
        if rows < 10 ** (number + 3):
            return f"n<{limit}" if number == 0 else f"{limits[number - 1]}<n<{limit}"
    return f"n>{limits[-1]}"


def _body(distiset: Distiset, name: str, repo_id: str | None) -> str:
    sections = [f"# {name}"]
    if distiset.origin and distiset.origin.description:
        sections.append(distiset.origin.description)
    sections.append("These rows were made by a pipeline of distill_ray.")
    if distiset.origin:
        sections.append(_pipeline(distiset.origin))
    sections += [_leaf(leaf, splits, repo_id) for leaf, splits in distiset.items()]
    if repo_id is None:
        sections.append(_FOLDER)
    return "\n\n".join(sections) + "\n"


_FOLDER: Final = """## How to load all of it

```python
from distill_ray.distiset import Distiset

distiset = Distiset.load_from_disk("path/to/this/folder")
```

The files are plain Parquet. A column whose values have no Arrow type in common is JSON text in them;
`Distiset` gives back the values themselves."""


def _pipeline(origin: PipelineOrigin) -> str:
    lines = [
        f"## Pipeline {_code(origin.name)}",
        "",
        "| step | class | reads from | models |",
        "| --- | --- | --- | --- |",
    ]
    for step in origin.steps:
        models = [
            f"{_code(model.name)} ({_cell(model.class_name)})" if model.name else _cell(model.class_name)
            for model in step.models
        ]
        cells = (
            _code(step.name),
            _code(step.class_name),
            ", ".join(map(_code, step.inputs)),
            ", ".join(models),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _leaf(leaf: str, splits: Mapping[str, Dataset], repo_id: str | None) -> str:
    columns = dict.fromkeys(name for dataset in splits.values() for name in dataset.column_names)
    lines = [f"## Leaf {_code(leaf)}", "", "| split | rows |", "| --- | --- |"]
    lines += [f"| {_code(split)} | {len(dataset)} |" for split, dataset in splits.items()]
    lines += ["", f"Columns: {', '.join(map(_code, columns)) or 'none'}", ""]
    lines += [*_loading(safe_name(leaf), repo_id)] if columns else []
    sample = next((dataset[0] for dataset in splits.values() if len(dataset)), None)
    if sample is not None:
        lines += ["A row:", "", _fenced(sample_text(sample), "json")]
    return "\n".join(lines).rstrip()


def _loading(config: str, repo_id: str | None) -> Iterator[str]:
    source = json.dumps(repo_id or "path/to/this/folder")
    second = "" if config == "default" else f", {json.dumps(config)}"
    yield _fenced(f"from datasets import load_dataset\n\ndataset = load_dataset({source}{second})", "python")
    yield ""


def sample_text(row: Row) -> str:
    """A row as indented JSON; long texts and lists are cut, and say so."""
    return json.dumps(_cut(row), indent=2, ensure_ascii=False)


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return f"{value[:_MAX_TEXT]}... ({len(value) - _MAX_TEXT:,} more characters)"
    if isinstance(value, list):
        rest = [f"... ({len(value) - _MAX_ITEMS:,} more items)"] if len(value) > _MAX_ITEMS else []
        return [*map(_cut, value[:_MAX_ITEMS]), *rest]
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    return value


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")
