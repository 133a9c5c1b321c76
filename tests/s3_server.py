"""An S3 server for the tests: moto's, on a loopback port, in a process of its own."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.gcs_server import wait_for

BUCKET = "cache-bucket"


@dataclass(frozen=True)
class S3Root:
    """An empty place in a bucket: its URL, and what a client needs to reach it."""

    url: str
    storage_options: dict[str, Any] = field(repr=False)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server."""
    log_path = tmp_path_factory.mktemp("s3") / "server.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    with log_path.open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(host, port, server, log_path)
        yield f"http://{host}:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def s3_options(s3_endpoint: str) -> dict[str, Any]:
    """What a client of the server needs."""
    return {
        "endpoint_url": s3_endpoint,
        "key": "test",
        "secret": "for the tests",
        "client_kwargs": {"region_name": "us-east-1"},
    }


@pytest.fixture(scope="session")
def s3_bucket(s3_options: dict[str, Any]) -> str:
    """The name of a bucket on the server."""
    from s3fs import S3FileSystem

    S3FileSystem(skip_instance_cache=True, **s3_options).call_s3("create_bucket", Bucket=BUCKET)
    return BUCKET


@pytest.fixture
def s3_root(s3_bucket: str, s3_options: dict[str, Any]) -> S3Root:
    """A cache root in the bucket that no other test sees."""
    return S3Root(f"s3://{s3_bucket}/{secrets.token_hex(8)}", s3_options)
