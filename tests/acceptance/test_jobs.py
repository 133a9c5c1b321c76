"""Pipelines as jobs on a cluster that is up: its driver on the head, its steps on another node."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import DISTILL_RAY, wait_until
from tests.acceptance.jobs_project import ROWS, write_project
from tests.clusters import RAY, ROOT, Cluster

TIMEOUT = 150

LAST_ROW = f"{{'n': {ROWS - 1}, 'shouted': 'HELLO {ROWS - 1}!', 'marked': 'HELLO {ROWS - 1}!?'}}"


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The URL of a cluster of two nodes, whose head has no CPUs for steps."""
    with Cluster(dashboard=True, environment={"DISTILL_RAY_PROGRESS": "auto"}) as cluster:
        cluster.add_node(cpus=4)
        yield cluster.dashboard_url


@dataclass(frozen=True)
class Submitter:
    """Somebody with a project and a cluster.

    Attributes:
        project: the folder of the script.
        dashboard: the cluster's URL.
        root: the cache root.
        seen: beginning of the names of the files that steps note down in which rows they are given.
        environment: variables of the shell.
    """

    project: Path
    dashboard: str
    root: Path
    seen: Path
    environment: Mapping[str, str] = field(repr=False)

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.project,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def submit_words(self, *options: str) -> list[str]:
        words = [DISTILL_RAY, "submit", "pipeline.py", "--address", self.dashboard]
        return [*words, "--cache-dir", str(self.root), "--env", "SEEN", *options]

    def submit(self, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
        """``distill-ray submit``, from the project's folder."""
        return self.run(*self.submit_words(*options), **more)

    def begin(self, *options: str, env: Mapping[str, str] | None = None) -> str:
        """Submit without waiting; returns the submission id."""
        variables = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
        begun = self.submit("--json", *variables, *options)
        assert begun.returncode == 0, begun.stderr
        return str(json.loads(begun.stdout)["job"])

    def ray_job_submit(self, *command: str) -> tuple[int, str]:
        """``ray job submit`` to its end: its exit code, and what the job printed."""
        variables = {"DISTILL_RAY_CACHE_DIR": str(self.root), "SEEN": str(self.seen)}
        submit = [RAY, "job", "submit", "--address", self.dashboard, "--working-dir", "."]
        submit += ["--runtime-env-json", json.dumps({"env_vars": variables})]
        done = self.run(*submit, "--", *command)
        (job,) = set(re.findall(r"raysubmit_\w+", done.stdout + done.stderr))
        return done.returncode, self.logs(job)

    def ray_job(self, command: str, job: str) -> str:
        done = self.run(RAY, "job", command, "--address", self.dashboard, job)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def logs(self, job: str) -> str:
        return str(_client(self.dashboard).get_job_logs(job))

    def status(self, job: str) -> str:
        return str(_client(self.dashboard).get_job_status(job).value)

    def ended(self, job: str) -> str:
        """Wait for a job's end; how it ended."""
        wait_until(lambda: self.status(job) not in ("PENDING", "RUNNING"), TIMEOUT)
        return self.status(job)

    def rows_seen(self, step: str = "shout") -> list[int]:
        """Rows that a step was given, over all jobs."""
        path = self.seen.with_name(f"{self.seen.name}-{step}")
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def _client(dashboard: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(dashboard)


@pytest.fixture
def submitter(dashboard: str, tmp_path: Path, cache_root: Path) -> Submitter:
    unset = {"RAY_ADDRESS", "RAY_JOB_ID", "DISTILL_RAY_CACHE_DIR", "DISTILL_RAY_PROGRESS"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    seen = tmp_path / "seen"
    environment |= {"SEEN": str(seen), "PYTHONPATH": str(ROOT)}
    return Submitter(write_project(tmp_path / "project"), dashboard, cache_root, seen, environment)


def assert_reads_well(log: str) -> None:
    """Lines and nothing else: no colours, no lines that are written over."""
    assert "\x1b" not in log
    assert "\r" not in log
    assert log.endswith("\n")


def test_a_script_is_submitted_and_followed_in_one_line(submitter: Submitter) -> None:
    done = submitter.submit("--follow", "--param", 'shout.greeting=it\'s $HOME; "so"')
    assert done.returncode == 0, done.stdout + done.stderr
    assert_reads_well(done.stdout)
    assert f"pipeline 'shop', cache {submitter.root}, run 2" in done.stdout
    assert "(mark/0 pid=" in done.stdout
    assert "a step prints" in done.stdout
    assert f"pipeline 'shop': complete, 0 rows reused, {3 * ROWS} computed" in done.stdout
    assert f"Distiset({{'default': {{'train': {ROWS}}}}})\n" in done.stdout
    assert "SUCCEEDED" in done.stderr

    # What the job stored is what a run here finds.
    plan = [DISTILL_RAY, "plan", "pipeline.py", "--json", "--param", 'shout.greeting=it\'s $HOME; "so"']
    planned = submitter.run(*plan, "--cache-dir", str(submitter.root))
    assert json.loads(planned.stdout)["complete"], planned.stdout
    assert sorted(submitter.rows_seen()) == list(range(ROWS))


@pytest.mark.slow
def test_a_script_as_rays_own_command_submits_it_and_one_that_runs_here_are_the_same(
    submitter: Submitter,
) -> None:
    code, log = submitter.ray_job_submit("python", "pipeline.py")
    assert code == 0, log
    assert f"{LAST_ROW}\n" in log
    assert_reads_well(log)

    variables = {"DISTILL_RAY_CACHE_DIR": str(submitter.root), "DISTILL_RAY_PROGRESS": "plain"}
    here = submitter.run(sys.executable, "pipeline.py", **variables)
    assert (here.returncode, here.stdout) == (0, f"{LAST_ROW}\n"), here.stderr
    assert "complete hit" in here.stderr
    code, log = submitter.ray_job_submit("python", "-m", "distill_ray", "run", "pipeline.py")
    assert code == 0, log
    assert "complete hit" in log
    assert sorted(submitter.rows_seen()) == list(range(ROWS))


@pytest.mark.slow
def test_a_step_that_raises_fails_the_job_with_the_exit_code_of_a_run(submitter: Submitter) -> None:
    done = submitter.submit("--follow", "--param", "shout.bad=100")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ValueError: row 100 is bad" in done.stdout
    assert "FAILED, exit code 1" in done.stderr

    again = submitter.submit("--follow")
    assert again.returncode == 0, again.stdout + again.stderr
    seen = submitter.rows_seen()
    assert sorted(set(seen)) == list(range(ROWS))
    assert len(seen) <= ROWS + 10  # what was under way beside the row that failed


@pytest.mark.slow
def test_a_script_that_raises_fails_the_job(submitter: Submitter) -> None:
    script = submitter.project / "pipeline.py"
    script.write_text(script.read_text() + "\nraise RuntimeError('not today')\n")
    done = submitter.submit("--follow")
    assert done.returncode == 2
    assert "raised while it was read" in done.stdout
    assert "RuntimeError: not today" in done.stdout
    code, log = submitter.ray_job_submit("python", "pipeline.py")
    assert code == 1
    assert "RuntimeError: not today\n" in log


@pytest.mark.slow
def test_a_job_that_is_stopped_ends_cleanly_and_the_next_one_goes_on(submitter: Submitter) -> None:
    job = submitter.begin("--param", "shout.pause=0.1")
    wait_until(lambda: len(submitter.rows_seen()) >= 30, TIMEOUT)
    submitter.ray_job("stop", job)
    assert submitter.ended(job) == "STOPPED"
    log = submitter.logs(job)
    assert_reads_well(log)
    assert "stopping: what is under way ends" in log
    assert log.endswith("What was finished is in the cache: run it again to resume.\n")

    again = submitter.submit("--follow")
    assert again.returncode == 0, again.stdout
    assert "waits" not in again.stdout  # for the one that was stopped: its leases are free
    # No row is given to the step twice, and none was left out.
    assert sorted(submitter.rows_seen()) == list(range(ROWS))


@pytest.mark.slow
def test_a_job_that_does_not_end_in_time_loses_what_was_not_yet_stored(submitter: Submitter) -> None:
    """One step holds the job up until it is killed; the other one's rows of the last moments are lost."""
    flush, pause = 1.0, 0.1
    options = ["--param", f"shout.pause={pause}", "--param", "stuck.pause=60"]
    env = {"TWO_BRANCHES": "1", "DISTILL_RAY_FLUSH_SECONDS": str(flush)}
    job = submitter.begin(*options, env=env)
    wait_until(lambda: len(submitter.rows_seen()) >= 50 and bool(submitter.rows_seen("stuck")), TIMEOUT)
    submitter.ray_job("stop", job)
    assert submitter.ended(job) == "STOPPED"
    seen = len(submitter.rows_seen())

    again = submitter.submit("--follow", "--env", "TWO_BRANCHES=1")
    assert again.returncode == 0, again.stdout
    assert "waits" not in again.stdout
    assert sorted(set(submitter.rows_seen())) == list(range(ROWS))
    lost = len(submitter.rows_seen()) - ROWS
    print(f"{seen} rows seen by the step when the job was killed, {lost} computed again")
    assert lost <= flush / pause + 10
    assert sorted(set(submitter.rows_seen("stuck"))) == list(range(ROWS))


@pytest.mark.slow
def test_the_distill_ray_that_submits_is_the_one_that_runs(submitter: Submitter, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "distill_ray", other / "distill_ray")
    lines = other / "distill_ray" / "observe" / "lines.py"
    lines.write_text(lines.read_text().replace("pipeline '{event.pipeline}'", "another '{event.pipeline}'"))
    shipped = submitter.submit("--follow", PYTHONPATH=str(other))
    assert "another 'shop'" in shipped.stdout, shipped.stdout + shipped.stderr
    installed = submitter.submit("--follow", "--no-ship", "--no-cache", PYTHONPATH=str(other))
    assert installed.returncode == 0
    assert "another 'shop'" not in installed.stdout


@pytest.mark.slow
def test_a_cluster_that_lacks_a_dependency_says_which(submitter: Submitter) -> None:
    # As good as not installed: what stands in the job's folder comes first.
    (submitter.project / "pydantic.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pydantic'\", name='pydantic')\n"
    )
    done = submitter.submit("--follow")
    assert done.returncode == 4
    assert "the module 'pydantic' is not installed for" in done.stdout
    assert "install distill-ray on every node" in done.stdout


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_alone_and_says_how_to_stop_it(submitter: Submitter) -> None:
    words = submitter.submit_words("--follow", "--param", "shout.pause=0.05")
    process = subprocess.Popen(
        words, cwd=submitter.project, env=dict(submitter.environment), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: len(submitter.rows_seen()) >= 10, TIMEOUT)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert "the job goes on" in err
    assert "Traceback" not in err
    (stop,) = re.findall(r"ray job stop --address \S+ (\S+)", err)
    assert submitter.ended(stop) == "SUCCEEDED"
    assert sorted(submitter.rows_seen()) == list(range(ROWS))


@pytest.mark.slow
def test_any_command_is_followed_to_its_end_and_its_own_exit_code(submitter: Submitter) -> None:
    from distill_ray.engine.on_ray.jobs import Job, JobClient

    client, said = JobClient(submitter.dashboard), list[str]()
    quiet = Job("sleep 5; echo late; printf half", submitter.project)
    assert client.follow(client.submit(quiet), said.append).status == "SUCCEEDED"
    assert "".join(said).endswith("late\nhalf")
    killed = client.submit(Job("kill -9 $$", submitter.project))
    outcome = client.follow(killed, said.append)
    assert (outcome.status, outcome.exit_code) == ("FAILED", 137)
    begun = time.monotonic()
    stopped = client.submit(Job("sleep 60", submitter.project))
    submitter.ray_job("stop", stopped)
    assert client.follow(stopped, said.append).exit_code == 143
    assert time.monotonic() - begun < 50


@pytest.mark.slow
def test_a_connection_that_breaks_costs_no_line_and_doubles_none(submitter: Submitter) -> None:
    from distill_ray.engine.on_ray.jobs import Job, JobClient

    said = list[str]()
    with cutting_proxy(submitter.dashboard, seconds=1.5) as (url, cuts):
        client = JobClient(url)
        job = client.submit(Job("for n in $(seq 80); do echo line $n; sleep 0.1; done", submitter.project))
        assert client.follow(job, said.append).status == "SUCCEEDED"
        assert len(cuts) >= 3
    assert "".join(said) == submitter.logs(job)
    assert "".join(said).endswith("".join(f"line {n}\n" for n in range(1, 81)))


@contextmanager
def cutting_proxy(target: str, seconds: float) -> Iterator[tuple[str, list[float]]]:
    """The URL of a proxy that ends each connection after some seconds, and when it did so."""
    host, port = target.removeprefix("http://").split(":")
    cuts: list[float] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(near: socket.socket) -> None:
        with near, socket.create_connection((host, int(port))) as far:
            pumps = [threading.Thread(target=pump, args=pair) for pair in ((near, far), (far, near))]
            for each in pumps:
                each.start()
            pumps[0].join(seconds)
            if pumps[0].is_alive():
                cuts.append(time.monotonic())
                near.shutdown(socket.SHUT_RDWR)
            for each in pumps:
                each.join()

    def accept() -> None:
        with suppress(OSError), ThreadPoolExecutor(16) as pool:
            while True:
                pool.submit(serve, server.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", cuts
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
