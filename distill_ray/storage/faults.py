"""What an error of a store's client means: whether it may pass by itself, and what to do where it does not.

Told by statuses and by the names of classes, so that no client is imported that is not in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

_PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})

_PASSING_CODES = frozenset({"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown"})
"""What S3 says with a status that says less."""

_PASSING = frozenset(
    {
        "aiohttp.client_exceptions.ClientError",
        "azure.core.exceptions.IncompleteReadError",
        "azure.core.exceptions.ServiceRequestError",
        "azure.core.exceptions.ServiceResponseError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.IncompleteReadError",
        "botocore.parsers.ResponseParserError",
        "gcsfs.retry.ChecksumError",
        "google.auth.exceptions.TransportError",
        "requests.exceptions.ChunkedEncodingError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.ContentDecodingError",
        "requests.exceptions.Timeout",
        "urllib3.exceptions.IncompleteRead",
    }
)

_LASTING = frozenset(
    {
        "aiohttp.client_exceptions.ClientConnectorCertificateError",
        "aiohttp.client_exceptions.InvalidURL",
        "requests.exceptions.SSLError",
    }
)

_NO_CREDENTIALS = frozenset(
    {
        "azure.core.exceptions.ClientAuthenticationError",
        "botocore.exceptions.CredentialRetrievalError",
        "botocore.exceptions.NoCredentialsError",
        "botocore.exceptions.PartialCredentialsError",
        "google.auth.exceptions.GoogleAuthError",
    }
)

_EXTRAS = {"s3": "s3", "s3a": "s3", "az": "azure", "abfs": "azure", "abfss": "azure", "adl": "azure"}

_KINDS = {"gs": "gs", "gcs": "gs", **_EXTRAS}

_CREDENTIALS = {
    "gs": "`gcloud auth application-default login` on your own machine, GOOGLE_APPLICATION_CREDENTIALS with "
    "the path of a key file, a workload identity on a cluster, or `storage_options`",
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a role of the machine, or "
    "`storage_options`",
    "azure": "`az login` on your own machine, AZURE_STORAGE_ACCOUNT_NAME with a managed identity or with "
    "AZURE_STORAGE_ACCOUNT_KEY, or `storage_options`",
}

_RIGHTS = {
    "gs": "the role roles/storage.objectUser on the bucket",
    "s3": "s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on what is in it",
    "azure": "the role Storage Blob Data Contributor on the container",
}

_CREATE = {
    "gs": "gcloud storage buckets create gs://{}",
    "s3": "aws s3 mb s3://{}",
    "azure": "az storage container create --name {}",
}


def is_passing(error: BaseException) -> bool:
    """Whether it may go away by itself: what was asked for is worth asking again."""
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | NotImplementedError):
        return False
    if isinstance(error, ConnectionError | TimeoutError | asyncio.TimeoutError):
        return True
    if (status := status_of(error)) is not None:
        return status in _PASSING_STATUSES or _s3_code(error) in _PASSING_CODES
    names = _names(error)
    if names & _LASTING:
        return False
    return bool(names & _PASSING) or bool(getattr(error, "retryable", False))  # google.auth's property


def status_of(error: BaseException) -> int | None:
    """The HTTP status that led to an error, as far as the client tells."""
    for each in _causes(error):
        answered = getattr(each, "response", None)
        of_s3 = answered.get("ResponseMetadata", {}) if isinstance(answered, dict) else {}
        for found in (
            getattr(each, "status_code", None),  # azure
            getattr(each, "status", None),  # aiohttp
            getattr(each, "code", None),  # gcsfs
            of_s3.get("HTTPStatusCode"),
        ):
            if str(found).isdecimal() and 400 <= int(str(found)) < 600:
                return int(str(found))
        if isinstance(each, PermissionError) or str(each).startswith("Forbidden: "):  # s3fs; gcsfs
            return 403
    return None


def is_no_bucket(error: BaseException) -> bool:
    """Whether a client that says that nothing was found says so of the bucket."""
    return _s3_code(error) == "NoSuchBucket"


def remedy(error: BaseException, url: str) -> str:
    """What to do about an error that stays: a sentence or two; empty where the error says all there is."""
    kind, bucket = _kind(url), urlsplit(url).netloc
    if isinstance(error, ImportError) and kind in _EXTRAS.values():
        return f"Install its client: pip install 'distill-ray[{kind}]'."
    status = status_of(error)
    if status == 401 or (_names(error) & _NO_CREDENTIALS):
        ways = _CREDENTIALS.get(kind, "`storage_options`")
        return f"There are no valid credentials for it here. Give some by {ways}."
    if status == 403 and kind in _RIGHTS:
        return f"The account whose credentials are used needs {_RIGHTS[kind]} '{bucket}'."
    if isinstance(error, FileNotFoundError) and kind in _CREATE:
        return (
            f"There is no bucket '{bucket}', or none that these credentials may see: create it "
            f"(`{_CREATE[kind].format(bucket)}`) or correct the URL."
        )
    if is_passing(error):
        return (
            "It was tried again in vain. See whether this machine reaches the store, then run again: what "
            "was stored until now is kept."
        )
    return ""


def _kind(url: str) -> str:
    return _KINDS.get(url.partition("://")[0], "")


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _s3_code(error: BaseException) -> str:
    for each in _causes(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""
