"""An HTTP server that fails on request, as model servers do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from distill_ray.models import ChatType


def chat(text: str) -> ChatType:
    return [{"role": "user", "content": text}]


@dataclass
class Reply:
    """What the faulty server does with one request."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class FaultyServer:
    """An HTTP server that gives the replies it was told to, then echoes the last message."""

    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    always: Reply | None = None
    choices: Callable[[dict[str, Any]], int] = lambda body: body.get("n", 1)
    delay: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    async def handle(self, request: web.Request) -> web.Response:
        self.times.append(time.monotonic())
        self.requests.append({**await request.json(), "headers": dict(request.headers)})
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._reply(self.requests[-1])
        finally:
            self.running -= 1

    async def _reply(self, body: dict[str, Any]) -> web.Response:
        reply = self.replies.pop(0) if self.replies else self.always or Reply(delay=self.delay)
        await asyncio.sleep(reply.delay)
        if reply.body is None and reply.status == 200:
            return web.json_response(self._echo(body))
        text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        headers = {"content-type": "application/json", **reply.headers}
        return web.Response(status=reply.status, body=text.encode(), headers=headers)

    def _echo(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": f"echo {body['messages'][-1]['content']} {body.get('seed')}",
        }
        choice = {"finish_reason": "stop", "message": message}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{**choice, "index": index} for index in range(self.choices(body))],
            "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        }
