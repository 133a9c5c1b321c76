"""An HTTP proxy that counts what passes, and breaks a share of it: what a bucket far away is like."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import unquote, urlsplit

import aiohttp
import pytest
from aiohttp import web

from tests.gcs_server import GcsRoot

Fault: TypeAlias = Literal["429", "503", "reset", "lost", "truncated", "delay"]
"""What may happen to a request: it is refused for now; its connection is reset before the server hears of it;
it is done, and its reply is lost; its reply ends before its content-length; it is held back for a while."""

FAULTS: tuple[Fault, ...] = get_args(Fault)

Kind: TypeAlias = Literal["read", "look", "list", "write", "delete", "other"]
"""What a request is about: an object's content, its record, a listing, ..."""

_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_LONGEST_DELAY = 0.3
_START_SECONDS = 20


@dataclass(frozen=True)
class Request:
    """One request, as the client sent it, and what came of it.

    Attributes:
        method: such as ``GET``.
        path: as it was sent, quoted.
        query: its parameters.
        status: of the reply that the client was sent; 0 for none.
        fault: what was done to it; empty for nothing.
        sent: bytes of its body.
        received: bytes of the body of the server's reply.
        name: of the object, or of the folder that is listed: of Google's JSON API only.
        exclusive: whether an object is to be written only where there is none.
    """

    method: str
    path: str
    query: dict[str, str]
    status: int
    fault: str = ""
    sent: int = 0
    received: int = 0
    name: str = ""
    exclusive: bool = False

    @property
    def kind(self) -> Kind:
        """What it is about: told by the paths of Google's JSON API, else as in S3."""
        if self.method == "DELETE" or "delete" in self.query or self.path.startswith("/batch/"):
            return "delete"
        if self.method in {"PUT", "POST", "PATCH"}:
            return "write"
        if "/storage/v1/" in self.path:
            if self.query.get("alt") == "media" or self.path.startswith("/download/"):
                return "read"
            if self.path.rstrip("/").endswith("/o"):
                return "list"
            return "look"
        if "list-type" in self.query:
            return "list"
        return {"GET": "read", "HEAD": "look"}.get(self.method, "other")  # type: ignore[return-value]


class FaultyProxy:
    """Stands before a server on loopback, on a thread of its own.

    Attributes:
        requests: all that passed, in the order in which they were answered.
    """

    def __init__(self, server: str, seed: int = 0) -> None:
        self._server = server.rstrip("/")
        self._random = random.Random(seed)
        self._rate, self._faults = 0.0, FAULTS
        self._kinds: frozenset[Kind] | None = None
        self._refused: list[tuple[Callable[[Request], bool], int, str]] = []
        self._down_until = 0.0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        """What clients take for the server."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        assert self._started.wait(_START_SECONDS)

    def close(self) -> None:
        """Stop listening, for good."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def inject(self, rate: float, *faults: Fault, kinds: tuple[Kind, ...] = ()) -> None:
        """From now on break this share of the requests, in one of these ways (else: in all) at random.

        Args:
            rate: from 0 to 1.
            faults: what may happen.
            kinds: to which kinds of requests; to all, if none is said.
        """
        with self._lock:
            self._rate, self._faults = rate, faults or FAULTS
            self._kinds = frozenset(kinds) or None

    def be_down(self, seconds: float) -> None:
        """Answer everything with 503 for so long."""
        with self._lock:
            self._down_until = time.monotonic() + seconds

    def refuse(self, which: Callable[[Request], bool], status: int, message: str = "refused") -> None:
        """From now on refuse these requests for good.

        Args:
            which: of these.
            status: the reply's.
            message: what it says in Google's words; S3's own are XML.
        """
        with self._lock:
            self._refused.append((which, status, message))

    def behave(self) -> None:
        """From now on pass everything on as it is."""
        with self._lock:
            self._rate, self._down_until = 0.0, 0.0
            self._refused.clear()

    def counts(self) -> Counter[Kind]:
        """How many requests there were of each kind."""
        return Counter(request.kind for request in list(self.requests))

    def faults(self) -> Counter[str]:
        """How many requests were broken in each way."""
        return Counter(request.fault for request in list(self.requests) if request.fault)

    @contextmanager
    def counting(self) -> Iterator[list[Request]]:
        """Give a list that holds, afterwards, the requests that were answered within the block."""
        before, within = len(self.requests), list[Request]()
        yield within
        within += self.requests[before:]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._open())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._shut())
        self._loop.close()

    async def _open(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        self._client = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()

    async def _shut(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _answer(self, asked: web.Request) -> web.StreamResponse:
        body = await asked.read()
        path, query = asked.raw_path.partition("?")[0], dict(asked.query)
        name = _name(path, query, body)
        exclusive = "If-None-Match" in asked.headers or "ifGenerationMatch" in query
        request = Request(asked.method, path, query, 0, sent=len(body), name=name, exclusive=exclusive)
        if refusal := self._refusal(request):
            status, message, fault = refusal
            self._note(request, status, fault)
            if message.startswith("<"):
                return web.Response(status=status, text=message, content_type="application/xml")
            return web.json_response({"error": {"code": status, "message": message}}, status=status)
        fault = self._fault(request)
        if fault in {"429", "503"}:
            self._note(request, int(fault), fault)
            return web.Response(status=int(fault), text="try again")
        if fault == "reset":
            self._note(request, 0, fault)
            return _reset(asked)
        if fault == "delay":
            await asyncio.sleep(self._random.uniform(0.01, _LONGEST_DELAY))
        status, headers, reply = await self._forward(asked, body)
        if fault == "lost":
            self._note(request, 0, fault, len(reply))
            return _reset(asked)
        if fault == "truncated" and len(reply) > 1:
            self._note(request, status, fault, len(reply))
            return await _cut(asked, status, headers, reply)
        self._note(request, status, "" if fault == "truncated" else fault, len(reply))
        if asked.method != "HEAD":
            headers.pop("Content-Length", None)
            return web.Response(status=status, headers=headers, body=reply)
        return web.Response(status=status, headers=headers)

    async def _forward(self, asked: web.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in _HOP_BY_HOP}
        server = urlsplit(self._server)
        url = asked.url.with_host(server.hostname or "").with_port(server.port)  # quoted as it was
        async with self._client.request(
            asked.method, url, headers=headers, data=body, allow_redirects=False
        ) as reply:
            content = await reply.read()
            kept = {n: v for n, v in reply.headers.items() if n.lower() not in _HOP_BY_HOP}
            if asked.method == "HEAD":
                kept["Content-Length"] = reply.headers.get("Content-Length", "0")
            # Where the server names itself: the rest of an upload in several requests must pass here, too.
            kept = {name: value.replace(self._server, self.url) for name, value in kept.items()}
            return reply.status, kept, content

    def _refusal(self, request: Request) -> tuple[int, str, str] | None:
        with self._lock:
            if time.monotonic() < self._down_until:
                return 503, "the service is down", "down"
            for which, status, message in self._refused:
                if which(request):
                    return status, message, "refused"
        return None

    def _fault(self, request: Request) -> Fault | Literal[""]:
        with self._lock:
            if self._kinds is not None and request.kind not in self._kinds:
                return ""
            return self._random.choice(self._faults) if self._random.random() < self._rate else ""

    def _note(self, request: Request, status: int, fault: str, received: int = 0) -> None:
        self.requests.append(replace(request, status=status, fault=fault, received=received))


@pytest.fixture
def faulty_proxy(gcs_endpoint: str) -> Iterator[FaultyProxy]:
    """A proxy before the Google Cloud Storage server; it only counts until told otherwise."""
    proxy = FaultyProxy(gcs_endpoint)
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def far_root(gcs_root: GcsRoot, faulty_proxy: FaultyProxy) -> GcsRoot:
    """An empty place in the bucket, reached through the proxy."""
    return GcsRoot(gcs_root.url, {**gcs_root.storage_options, "endpoint_url": faulty_proxy.url})


def _name(path: str, query: dict[str, str], body: bytes) -> str:
    """What a request is about; where an object is written, its name may stand in the body's first part."""
    _, _, quoted = path.partition("/o/")
    if named := unquote(quoted) or query.get("name") or query.get("prefix", ""):
        return named
    start = body.find(b"{")
    if "/storage/v1/" not in path or start < 0:
        return ""
    head = body[start : start + 4096].decode(errors="replace")
    try:
        record, _ = json.JSONDecoder().raw_decode(head)
    except ValueError:
        return ""
    return str(record.get("name", "")) if isinstance(record, dict) else ""


def _reset(asked: web.Request) -> web.Response:
    """Break the connection off; what is returned goes nowhere."""
    if (transport := asked.transport) is not None:
        with suppress(OSError):
            at_once = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        transport.abort()
    return web.Response(status=503)


async def _cut(asked: web.Request, status: int, headers: Any, reply: bytes) -> web.StreamResponse:
    """Say how long the reply is, send half of it, and hang up."""
    response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(reply))})
    with suppress(ConnectionError):
        await response.prepare(asked)
        await response.write(reply[: len(reply) // 2])
        assert asked.transport is not None
        asked.transport.close()
    return response
