"""Data sets of Hugging Face, and an upload by its real client to a small Hub on loopback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill_ray.cache.rows import encode_rows
from distill_ray.distiset import Dataset, Distiset
from distill_ray.errors import ParameterError
from distill_ray.types import Row
from tests.distiset.hub_server import Hub, serve_hub

TOKEN = "hf_of_the_test"

OPENING = """
from distill_ray.distiset import Distiset
distiset = Distiset.load_from_disk("saved")
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(TOKEN) as hub:
        yield hub


def dataset_of(*rows: Row) -> Dataset:
    return Dataset.from_tables([encode_rows(list(rows))])


def upload(hub: Hub, folder: Path, script: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own: the client reads the Hub's address when it is imported."""
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", OPENING + script],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_splits_of_a_leaf_have_the_same_features() -> None:
    distiset = Distiset(
        {
            "default": {
                "train": dataset_of({"a": 1, "b": None, "c": {"x": 1}}),
                "test": dataset_of({"a": 2.5, "b": "text", "c": {"y": []}}, {}),
            }
        }
    )
    found = distiset.to_datasets()["default"]
    assert found["train"].features == found["test"].features
    assert found["train"].to_list() == [{"a": 1.0, "b": None, "c": {"x": 1, "y": None}}]
    assert found["test"].to_list() == [
        {"a": 2.5, "b": "text", "c": {"x": None, "y": []}},
        {"a": None, "b": None, "c": None},
    ]


def test_an_upload_has_a_configuration_for_each_leaf_and_a_card(hub: Hub, tmp_path: Path) -> None:
    distiset = Distiset({"answers": {"train": dataset_of(*[{"a": n, "b": {"x": n}} for n in range(10)])}})
    distiset.train_test_split(0.8, shuffle=False)
    distiset["scores"] = {"train": dataset_of({"m": "x"})}
    distiset["nothing"] = {"train": dataset_of()}
    distiset.save_to_disk(tmp_path / "saved")
    script = """
distiset.push_to_hub("me/rows", private=True)
distiset.push_to_hub("me/rows")  # over the one before
import datasets
print(datasets.load_dataset("me/rows", "answers")["test"].to_list())
"""
    done = upload(hub, tmp_path, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[{'a': 8, 'b': {'x': 8}}, {'a': 9, 'b': {'x': 9}}]"
    assert hub.refused == []
    assert hub.private == {"me/rows": True}
    files = hub.files["me/rows"]
    assert set(files) == {
        "README.md",
        "answers/train-00000-of-00001.parquet",
        "answers/test-00000-of-00001.parquet",
        "scores/train-00000-of-00001.parquet",
    }
    assert pq.read_table(io.BytesIO(files["scores/train-00000-of-00001.parquet"])).to_pylist() == [{"m": "x"}]
    card = files["README.md"].decode()
    assert "config_name: answers" in card
    assert "- distill_ray" in card
    assert 'load_dataset("me/rows", "answers")' in card
    assert TOKEN not in card


def test_a_refused_token_is_the_clients_error_and_uploads_nothing(hub: Hub, tmp_path: Path) -> None:
    Distiset({"default": {"train": dataset_of({"a": 1})}}).save_to_disk(tmp_path / "saved")
    done = upload(hub, tmp_path, 'distiset.push_to_hub("me/rows")', token="hf_wrong")
    assert done.returncode != 0
    assert "401" in done.stderr
    assert hub.files == {}


@pytest.mark.parametrize("leaf", ["data", "a/b"])
def test_a_leaf_that_cannot_be_a_configuration_is_told_before_anything_is_sent(leaf: str) -> None:
    with pytest.raises(ParameterError, match=f"no configuration named '{leaf}'"):
        Distiset({leaf: {"train": dataset_of({"a": 1})}}).push_to_hub("me/rows")


def test_an_upload_of_nothing_and_one_torn_into_pull_requests_are_refused() -> None:
    with pytest.raises(ParameterError, match="nothing to upload"):
        Distiset({"default": {"train": dataset_of()}}).push_to_hub("me/rows")
    with pytest.raises(ParameterError, match="create_pr"):
        Distiset({"default": {"train": dataset_of({"a": 1})}}).push_to_hub("me/rows", create_pr=True)
