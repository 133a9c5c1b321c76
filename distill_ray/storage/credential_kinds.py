"""Which credentials this process would find for a store: their kinds only, and nothing of what they are."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

_METADATA = ("169.254.169.254", 80)
"""Where machines of all clouds are told who they are."""

_METADATA_SECONDS = 1.0

_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "google": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "amazon": (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
    "azure": (
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
    ),
}

_CLOUDS = {
    "gs": "google",
    "gcs": "google",
    "s3": "amazon",
    "s3a": "amazon",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}

_OF_FILES = {"GOOGLE_APPLICATION_CREDENTIALS", "AWS_WEB_IDENTITY_TOKEN_FILE", "AZURE_FEDERATED_TOKEN_FILE"}
"""Variables that name a file."""


def credential_kinds(url: str) -> tuple[str, ...]:
    """Name what would be used for a store, such as ``metadata server``; nothing for a folder.

    Looks at variables, files and fsspec's configuration; asks the network, for a second, only where there is
    nothing else.
    """
    protocol = urlsplit(url).scheme
    if (cloud := _CLOUDS.get(protocol)) is None:
        return ()
    found = (*_variables(cloud), *_files(cloud), *_configured(protocol))
    return found or (("metadata server",) if _has_metadata_server() else ())


def _variables(cloud: str) -> Iterator[str]:
    for name in _VARIABLES[cloud]:
        if value := os.environ.get(name):
            gone = name in _OF_FILES and not Path(value).is_file()
            yield f"{name} (there is no such file)" if gone else name


def _files(cloud: str) -> Iterator[str]:
    if cloud == "google":
        folder = os.environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
        if Path(folder, "application_default_credentials.json").expanduser().is_file():
            yield "application default credentials of gcloud"
    elif cloud == "amazon":
        file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
        if Path(file).expanduser().is_file():
            yield "credentials file of aws"
    elif Path("~/.azure").expanduser().is_dir():
        yield "az login"


def _configured(protocol: str) -> Iterator[str]:
    import fsspec

    names = {"gs", "gcs"} if protocol in {"gs", "gcs"} else {protocol}
    secrets = (
        "token",
        "key",
        "secret",
        "account_key",
        "sas_token",
        "connection_string",
        "credential",
        "anon",
    )
    if any(fsspec.config.conf.get(name, {}).get(key) for name in names for key in secrets):
        yield "configuration of fsspec"


def _has_metadata_server() -> bool:
    if os.environ.get("GCE_METADATA_HOST"):
        return True
    with socket.socket() as asked:
        asked.settimeout(_METADATA_SECONDS)
        try:
            return asked.connect_ex(_METADATA) == 0
        except OSError:
            return False
