"""Which credentials would be used is told by their kind, from what is set and what files there are."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from distill_ray.storage import credential_kinds


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "GCE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_HOST", "metadata.example")  # so that no network is asked
    monkeypatch.setattr(fsspec.config, "conf", {})


def test_a_folder_needs_none() -> None:
    assert credential_kinds("/home/me/cache") == ()
    assert credential_kinds("file:///home/me/cache") == ()


def test_a_key_file_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    assert credential_kinds("gs://b") == ("GOOGLE_APPLICATION_CREDENTIALS (there is no such file)",)
    key.write_text("{}")
    assert credential_kinds("gs://b/c") == ("GOOGLE_APPLICATION_CREDENTIALS",)
    assert credential_kinds("s3://b/c") == ("metadata server",)


def test_files_and_settings_are_named_by_what_made_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gcloud = tmp_path / ".config" / "gcloud"
    gcloud.mkdir(parents=True)
    (gcloud / "application_default_credentials.json").write_text("{}")
    assert credential_kinds("gs://b") == ("application default credentials of gcloud",)

    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "not to be shown")
    monkeypatch.setattr(fsspec.config, "conf", {"s3": {"secret": "nor this"}})
    told = credential_kinds("s3://b")
    assert told == ("AWS_ACCESS_KEY_ID", "credentials file of aws", "configuration of fsspec")


def test_without_any_it_is_the_machines_own() -> None:
    assert credential_kinds("gs://b") == ("metadata server",)
