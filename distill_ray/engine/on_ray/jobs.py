"""Jobs on a running Ray cluster, over HTTP: what is shipped with one, what it says, how it ended.

Knows commands and folders, nothing of pipelines. The cluster's own side of it is Ray's Jobs API.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_ray.engine.on_ray.shipping import LEFT_OUT, check_size
from distill_ray.errors import ClusterError, ParameterError

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Where Ray's own commands look for the cluster, in this order."""

READY_SECONDS = 60.0
"""How long a cluster that has just begun may take until it starts jobs."""

PATIENCE_SECONDS = 120.0
"""How long a job that is followed may be out of reach."""

RETRY_SECONDS = 1.0

STOPPED_CODE = 143
"""What a shell says of a process that SIGTERM ended, as a job's is that was stopped."""


@dataclass(frozen=True)
class Job:
    """What a cluster is asked to run.

    Attributes:
        command: a line for the shell, run in the copy of ``working_dir``.
        working_dir: a folder that is copied to every node of the job.
        packages: folders of Python packages that go along and come before those installed there.
        env_vars: environment variables, on every node of the job.
        submission_id: what it is to be called; empty: the cluster names it.
    """

    command: str
    working_dir: Path
    packages: tuple[Path, ...] = ()
    env_vars: Mapping[str, str] = field(default_factory=dict)
    submission_id: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a job stands.

    Attributes:
        status: Ray's word: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        code: exit code of its command, where that is known.
        message: what Ray has to say of it.
    """

    status: str
    code: int | None = None
    message: str = ""

    @property
    def ended(self) -> bool:
        """Whether it stays so."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def exit_code(self) -> int:
        """The command's own code where it is known, as a shell would say it."""
        if self.status == "SUCCEEDED":
            return 0
        if self.status == "STOPPED":
            return STOPPED_CODE
        if not self.code:
            return 1
        return self.code if self.code > 0 else 128 - self.code


class JobClient:
    """Speaks to the Jobs API of one cluster.

    Args:
        address: ``http://HOST:8265``, or whatever Ray finds the dashboard by; empty takes the environment's.

    Attributes:
        address: the URL of the dashboard.

    Raises:
        ParameterError: nobody says which cluster.
        ClusterError: it cannot be reached.
    """

    def __init__(self, address: str = "") -> None:
        _quieten()
        given = address or next(filter(None, map(os.environ.get, ADDRESS_VARIABLES)), "")
        if not given:
            raise ParameterError(
                "Say which cluster: --address http://HOST:8265, where its dashboard is, or RAY_ADDRESS."
            )
        with _without_address_variables():  # Ray lets them win over what it is given
            self._client = _connected(given)
        self.address = str(self._client.get_address())

    def nodes(self) -> int:
        """How many nodes the cluster has now; 0 where it does not say."""
        from ray.util.state import list_nodes

        try:
            with _without_address_variables():
                return sum(node.state == "ALIVE" for node in list_nodes(address=self.address, timeout=10))
        except Exception:  # what is missing is a warning only, and the job will see for itself
            return 0

    def submit(self, job: Job) -> str:
        """Ship what a job needs, have it started, and return its submission id.

        Raises:
            ParameterError: the folder is too large to be shipped.
            ClusterError: the cluster does not take it.
        """
        for folder in (job.working_dir, *job.packages):
            check_size(folder)
        runtime_env: dict[str, Any] = {
            "working_dir": str(job.working_dir),
            "excludes": list(LEFT_OUT),
            "env_vars": dict(job.env_vars),
        }
        if job.packages:
            runtime_env["py_modules"] = [str(package) for package in job.packages]
        options = {"entrypoint": job.command, "submission_id": job.submission_id or None}
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                return str(self._client.submit_job(runtime_env=runtime_env, **options))
            except Exception as error:
                # The dashboard is up before what starts jobs is: an agent on the head.
                if "No available agent" not in str(error) or time.monotonic() >= deadline:
                    raise ClusterError(
                        f"The cluster at {self.address} did not take the job: {str(error).rstrip('.')}."
                    ) from error
            time.sleep(RETRY_SECONDS)

    def outcome(self, job: str) -> Outcome:
        """How a job stands now."""
        found = self._client.get_job_info(job)
        return Outcome(str(found.status.value), found.driver_exit_code, found.message or "")

    def follow(self, job: str, write: Callable[[str], None]) -> Outcome:
        """Hand on what a job prints, as it comes and all of it, until it has ended.

        Args:
            job: its submission id.
            write: is handed texts, which need not be whole lines.

        Raises:
            ClusterError: the cluster was out of reach for `PATIENCE_SECONDS`. The job may go on.
        """
        return asyncio.run(self._follow(job, write))

    async def _follow(self, job: str, write: Callable[[str], None]) -> Outcome:
        said = _Said(write)
        while True:
            with suppress(Exception):  # of tunnels that close what is silent, of a head node that is away
                said.begin()
                async for text in self._client.tail_job_logs(job):  # from the first line on, each time
                    said.take(text)
            try:
                outcome = self.outcome(job)
                # What a broken connection lost, and what was printed after the last look at a job that ended.
                said.begin()
                said.take(self._client.get_job_logs(job))
            except Exception as error:
                if said.seconds_ago() >= PATIENCE_SECONDS:
                    raise ClusterError(
                        f"The cluster at {self.address} has been out of reach for {PATIENCE_SECONDS:.0f} s: "
                        f"{error}. Job {job} may go on there."
                    ) from error
            else:
                if outcome.ended:
                    return outcome
            await asyncio.sleep(RETRY_SECONDS)


class _Said:
    """What a job printed, which comes again from its beginning, and is handed on once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._shown = self._place = 0
        self._heard = time.monotonic()

    def begin(self) -> None:
        """What comes next is the beginning."""
        self._place = 0

    def take(self, text: str) -> None:
        """Take in what comes next; an answer without text is a sign of life too."""
        self._heard = time.monotonic()
        new = text[max(0, self._shown - self._place) :]
        self._place += len(text)
        if new:
            self._shown = self._place
            self._write(new)

    def seconds_ago(self) -> float:
        """How long nothing has been heard."""
        return time.monotonic() - self._heard


def _connected(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    if "://" not in address and ":" in address:
        # Ray takes HOST:PORT for its own port, and waits for most of a minute where it is the dashboard's.
        with suppress(Exception):
            return JobSubmissionClient(f"http://{address}")
    try:
        return JobSubmissionClient(address)
    except Exception as error:
        raise ClusterError(
            f"There is no cluster to be reached at '{address}': {str(error).rstrip('.')}. Give the URL of "
            "its dashboard, such as http://HOST:8265; from outside, through `kubectl port-forward` or an SSH "
            "tunnel."
        ) from error


@contextmanager
def _without_address_variables() -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _quieten() -> None:
    """Ray's client tells each request and each closed connection; what matters is said by whoever asks."""
    for module in ("job.sdk", "dashboard_sdk"):
        name = f"ray.dashboard.modules.{module}"
        __import__(name)  # it sets its level when it is imported
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
