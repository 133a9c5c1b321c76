"""A small Hub on loopback: answers what `datasets` and `huggingface_hub` ask, and keeps what they upload."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Data set repositories in memory: ``files[repository][path]``."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.files: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.commits = 0
        self.refused: list[str] = []

    @property
    def head(self) -> str:
        """The name of the latest commit."""
        return f"{self.commits:040x}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve_hub(token: str) -> Iterator[Hub]:
    """Serve a Hub that takes this token only."""
    with Hub(token) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(/revision/.+)?", path):
            self._repository(found[1])
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+/?(.*)", path):
            self._tree(found[1], found[2], "recursive=true" in self.path.lower())
        elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(found[1], found[2])
        else:
            self._refuse()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._json({"error": "Invalid credentials"}, status=401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/.+", path):
            self._paths(found[1], json.loads(body)["paths"])
        elif re.fullmatch(r"/datasets/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            self._batch(json.loads(body)["objects"])
        elif re.fullmatch(r"/api/datasets/[^/]+/[^/]+/preupload/.+", path):
            asked = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {"path": each["path"], "uploadMode": _mode(each["path"]), "shouldIgnore": False}
                        for each in asked
                    ]
                }
            )
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/commit/.+", path):
            self._commit(found[1], body)
        else:
            self._refuse()

    def do_PUT(self) -> None:
        data = self._body()
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        self._answer(200, b"", {})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        answers = [
            {**each, "actions": {"upload": {"href": f"{self.server.url}/large/{each['oid']}", "header": {}}}}
            for each in objects
        ]
        self._json({"transfer": "basic", "objects": answers})

    def _repository(self, name: str) -> None:
        if name not in self.server.files:
            self._json(
                {"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"}
            )
            return
        siblings = [{"rfilename": path} for path in self.server.files[name]]
        self._json(
            {"id": name, "sha": self.server.head, "private": self.server.private[name], "siblings": siblings}
        )

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        self.server.files.setdefault(name, {})
        self.server.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
        self._json({"url": f"{self.server.url}/datasets/{name}", "name": name})

    def _commit(self, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                self.server.files[name][line["value"]["path"]] = self.server.large[line["value"]["oid"]]
            elif line["key"] == "deletedFile":
                del self.server.files[name][line["value"]["path"]]
        self.server.commits += 1
        self._json(
            {
                "commitUrl": f"{self.server.url}/{name}/commit/{self.server.head}",
                "commitOid": self.server.head,
            }
        )

    def _tree(self, name: str, folder: str, recursive: bool) -> None:
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in self.server.files[name] if path.startswith(prefix)]
        if folder and not inside:
            self._missing()
            return
        shown = {path for path in inside if recursive or "/" not in path[len(prefix) :]}
        shown |= {prefix + path[len(prefix) :].split("/")[0] for path in inside}
        self._json([self._entry(name, path) for path in sorted(shown)])

    def _entry(self, name: str, path: str) -> dict[str, Any]:
        data = self.server.files[name].get(path)
        if data is None:
            return {"type": "directory", "path": path, "oid": self.server.head}
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _paths(self, name: str, asked: list[str]) -> None:
        known = self.server.files[name]
        found = [path for path in asked if any(f"{each}/".startswith(f"{path}/") for each in known)]
        self._json([self._entry(name, path) for path in found])

    def _file(self, name: str, path: str) -> None:
        data = self.server.files.get(name, {}).get(path)
        if data is None:
            self._missing()
            return
        headers = {"X-Repo-Commit": self.server.head, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        self._answer(200, data, headers)

    def _missing(self) -> None:
        self._json({"error": "Entry not found"}, status=404, headers={"X-Error-Code": "EntryNotFound"})

    def _refuse(self) -> None:
        self.server.refused.append(f"{self.command} {self.path}")
        self._json({"error": "This Hub does not know that"}, status=404)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, tree: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(
            status, json.dumps(tree).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".parquet") else "regular"
