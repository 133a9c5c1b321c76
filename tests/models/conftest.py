"""Model servers for the tests: the real small model behind llama.cpp's own, and one that fails on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from distill_ray.models import AsyncLLM, InferenceEndpointsLLM, OpenAILLM, local_model
from distill_ray.models.event_loop import EventLoopThread
from tests.models.model_servers import FaultyServer


@pytest.fixture(scope="session")
def weights() -> Path:
    """The small model's file, fetched as a user's first run would fetch it."""
    return local_model.resolve("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def model_server(weights: Path) -> Iterator[str]:
    """The address of llama.cpp's OpenAI-compatible server with the small model."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx, params.n_parallel, params.verbosity, params.ui = 4096, 2, 0, False
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def faulty_server() -> Iterator[FaultyServer]:
    faulty = FaultyServer()
    loop = EventLoopThread(slots=1)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/{path:.*}", faulty.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        faulty.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    runner = loop.run(start())
    yield faulty
    loop.run(runner.cleanup())
    loop.close()


@pytest.fixture(params=["openai", "inference_endpoints"])
def client(request: pytest.FixtureRequest) -> Iterator[Callable[..., AsyncLLM]]:
    """A loaded model of each kind that asks a server; unloaded at the end."""
    loaded: list[AsyncLLM] = []

    def make(base_url: str, **fields: Any) -> AsyncLLM:
        llm: AsyncLLM
        if request.param == "openai":
            llm = OpenAILLM(model="m", base_url=base_url, api_key="sk-secret", **fields)
        else:
            llm = InferenceEndpointsLLM(base_url=base_url, api_key="sk-secret", **fields)
        llm.load()
        loaded.append(llm)
        return llm

    yield make
    for llm in loaded:
        llm.unload()
