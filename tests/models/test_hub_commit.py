from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distill_ray.models.hub_commit import hub_commit

COMMIT = "3" * 40


class Hub(BaseHTTPRequestHandler):
    """The page of a model hub that tells a revision's commit."""

    def do_GET(self) -> None:
        known = self.path in ("/api/models/org/mine/revision/main", "/api/models/org/mine/revision/v1")
        content = json.dumps({"id": "org/mine", "sha": COMMIT}).encode() if known else b"{}"
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "commit"),
    [(("org/mine",), COMMIT), (("org/mine", "v1"), COMMIT), (("org/mine", "v2"), None), (("org/no",), None)],
)
def test_the_hub_is_asked_for_the_commit(
    hub: str, tmp_path: Path, arguments: tuple[str, ...], commit: str | None
) -> None:
    """In a process of its own: the client reads the Hub's address when it is imported."""
    script = f"from distill_ray.models.hub_commit import hub_commit; print(hub_commit(*{arguments!r}))"
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(commit)


def test_a_commit_stands_for_itself() -> None:
    assert hub_commit("org/mine", COMMIT) == COMMIT
