"""An Azure Blob Storage server for the tests, where there is one: Azurite, which is no Python package.

``npm install -g azurite`` and ``pip install 'distill-ray[azure]'`` have these tests run.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.gcs_server import wait_for

CONTAINER = "cache-container"


@dataclass(frozen=True)
class AzureRoot:
    """An empty place in a container: its URL, and what a client needs to reach it."""

    url: str
    storage_options: dict[str, Any] = field(repr=False)


@pytest.fixture(scope="session")
def azure_options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a client of a running server needs."""
    pytest.importorskip("adlfs", reason="needs distill-ray[azure]")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs Azurite: npm install -g azurite")
    folder = tmp_path_factory.mktemp("azure")
    key = base64.b64encode(b"for the tests").decode()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    command = [program, "--blobHost", host, "--blobPort", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "AZURITE_ACCOUNTS": f"test:{key}"},
        )
    try:
        wait_for(host, port, server, folder / "server.log")
        endpoint = f"BlobEndpoint=http://{host}:{port}/test"
        yield {"connection_string": f"AccountName=test;AccountKey={key};{endpoint}"}
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def azure_container(azure_options: dict[str, Any]) -> str:
    """The name of a container on the server."""
    from adlfs import AzureBlobFileSystem

    AzureBlobFileSystem(skip_instance_cache=True, **azure_options).mkdir(CONTAINER)
    return CONTAINER


@pytest.fixture
def azure_root(azure_container: str, azure_options: dict[str, Any]) -> AzureRoot:
    """A cache root in the container that no other test sees."""
    return AzureRoot(f"az://{azure_container}/{secrets.token_hex(8)}", azure_options)
