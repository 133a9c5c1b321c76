"""Every storage passes the suite that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_ray.storage import LayeredStorage, Storage, open_storage
from distill_ray.testing import StorageContract
from tests.azure_server import AzureRoot
from tests.gcs_server import GcsRoot
from tests.s3_server import S3Root


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(str(tmp_path / "root"))


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(f"memory://{tmp_path}")


class TestGoogleCloudStorage(StorageContract):
    @pytest.fixture
    def storage(self, gcs_root: GcsRoot) -> Storage:
        return open_storage(gcs_root.url, gcs_root.storage_options)


class TestS3Storage(StorageContract):
    @pytest.fixture
    def storage(self, s3_root: S3Root) -> Storage:
        return open_storage(s3_root.url, s3_root.storage_options)


class TestAzureStorage(StorageContract):
    @pytest.fixture
    def storage(self, azure_root: AzureRoot) -> Storage:
        return open_storage(azure_root.url, azure_root.storage_options)


class TestLayeredStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        others = (open_storage(str(tmp_path / "second")), open_storage(str(tmp_path / "third")))
        return LayeredStorage(open_storage(str(tmp_path / "root")), others)
