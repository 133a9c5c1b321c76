"""How busy a pipeline keeps the slots of a model's server.

A server that speaks OpenAI's API, in a process of its own, answers up to a fixed number of requests at once;
others wait. How long an answer takes is spread log-normally and depends on the row alone. A `TextGeneration`
on Ray asks it about all rows: by one replica, by two, and, to compare, about a quarter of them by one that is
given one batch after the other. Prints JSON.

    python benchmarks/llm_saturation.py --rows 2000 --batch-size 50 --slots 32

``busy`` is the share of the slots' time that was spent on answers, as the server counts it, from the first
request to the last one that came in: what follows is the tail, in which there is nothing left to send.
``rows_per_second`` is over all of it, the tail included; ``ideal_rows_per_second`` is what slots that never
wait would give. CPU seconds are those of the process that calls ``run`` and of the replicas that ask.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_ray.models import OpenAILLM
from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepResources
from distill_ray.steps.tasks import TextGeneration
from distill_ray.types import Unsigned

if TYPE_CHECKING:
    from aiohttp import web


class Metered(OpenAILLM):
    """Leaves behind how much CPU the process used that asked."""

    meters: Unsigned[str]

    def unload(self) -> None:
        Path(self.meters, str(os.getpid())).write_text(str(time.process_time()), encoding="utf-8")
        super().unload()


class OneBatchAtATime(Metered):
    """Asked as a model is that can answer one batch only."""

    def batches_at_once(self, conversations: int, num_generations: int = 1) -> int:  # noqa: ARG002
        return 1


PHASES = {
    "one_replica": (Metered, 1, 1.0),
    "two_replicas": (Metered, 2, 1.0),
    "batch_by_batch": (OneBatchAtATime, 1, 0.25),
}
"""For each the model's class, the replicas, and the share of rows: what is slow is to take no longer."""


def seconds_of(row: str, options: argparse.Namespace) -> float:
    """How long the answer to a row takes."""
    return random.Random(row).lognormvariate(math.log(options.median), options.sigma)


# The server.


class Slots:
    """Answers with a limit, and adds up how long slots were busy."""

    def __init__(self, options: argparse.Namespace) -> None:
        import asyncio

        self._options = options
        self._free = asyncio.Semaphore(options.slots)
        self._busy = 0
        self._busy_seconds = 0.0
        self._changed = 0.0
        self._first = 0.0
        self._found: dict[str, Any] = {"requests": 0, "most_waiting": 0}
        self._waiting = 0

    async def answer(self, request: web.Request) -> web.Response:
        import asyncio

        from aiohttp import web

        row = (await request.json())["messages"][-1]["content"]
        self._came()
        self._waiting += 1
        async with self._free:
            self._waiting -= 1
            self._note(+1)
            await asyncio.sleep(seconds_of(row, self._options))
            self._note(-1)
        self._found["seconds"] = time.monotonic() - self._first
        message = {"role": "assistant", "content": f"answer to {row}"}
        return web.json_response(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "spread",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
            }
        )

    async def stats(self, request: web.Request) -> web.Response:  # noqa: ARG002
        from aiohttp import web

        return web.json_response(self._found)

    def _came(self) -> None:
        """Each request may be the last one: what was so far is without the tail."""
        self._note(0)
        self._first = self._first or self._changed
        self._found["requests"] += 1
        self._found["most_waiting"] = max(self._found["most_waiting"], self._waiting)
        passed = self._changed - self._first
        self._found["busy"] = self._busy_seconds / passed / self._options.slots if passed else 0.0
        self._found["seconds_without_tail"] = passed

    def _note(self, change: int) -> None:
        now = time.monotonic()
        self._busy_seconds += self._busy * (now - self._changed)
        self._busy += change
        self._changed = now


async def serve(options: argparse.Namespace) -> None:
    import asyncio

    from aiohttp import web

    slots = Slots(options)
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", slots.answer), web.get("/stats", slots.stats)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


# A run.


def run_phase(options: argparse.Namespace) -> dict[str, Any]:
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)
    kind, replicas, share = PHASES[options.phase]
    count = int(options.rows * share)
    rows = [{"instruction": f"row {number}"} for number in range(count)]
    with tempfile.TemporaryDirectory() as folder, Pipeline(name="saturation", cache_dir=folder) as pipeline:
        (meters := Path(folder, "meters")).mkdir()
        llm = kind(
            model="spread",
            base_url=options.url,
            max_concurrency=options.slots // replicas,
            timeout=600,
            meters=str(meters),
        )
        resources = StepResources(replicas=replicas, cpus=0.1)
        load = LoadDataFromDicts(name="load", data=rows)
        load >> TextGeneration(name="ask", llm=llm, input_batch_size=options.batch_size, resources=resources)
        before = time.process_time()
        distiset = pipeline.run(progress="none")
        driver = time.process_time() - before
        answers = [row["generation"] for row in distiset["default"]["train"]]
        used = [float(meter.read_text(encoding="utf-8")) for meter in meters.iterdir()]
    assert answers == [f"answer to row {number}" for number in range(count)]
    assert len(used) == replicas
    return {
        "rows": count,
        "replicas": replicas,
        "max_concurrency": llm.max_concurrency,
        "batches_at_once": llm.batches_at_once(options.batch_size),
        "driver_cpu_seconds": round(driver, 2),
        "replica_cpu_seconds": round(sum(used), 2),
    }


# All of it.


def call_self(options: argparse.Namespace, *arguments: str) -> subprocess.Popen[str]:
    given = {name.replace("_", "-"): value for name, value in vars(options).items() if value is not None}
    own = [f"--{name}={value}" for name, value in given.items()]
    return subprocess.Popen([sys.executable, __file__, *own, *arguments], stdout=subprocess.PIPE, text=True)


def measure(phase: str, options: argparse.Namespace) -> dict[str, Any]:
    server = call_self(options, "--phase=serve")
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        output, _ = (client := call_self(options, f"--phase={phase}", f"--url={url}/v1")).communicate()
        if client.returncode:
            raise SystemExit(f"phase {phase} failed")
        with urllib.request.urlopen(f"{url}/stats") as reply:
            seen = json.loads(reply.read())
    finally:
        server.kill()
        server.wait()
    found = json.loads(output.splitlines()[-1])
    assert seen["requests"] == found["rows"]
    return {
        "busy": round(seen["busy"], 4),
        "rows_per_second": round(found["rows"] / seen["seconds"], 2),
        "seconds": round(seen["seconds"], 1),
        "seconds_of_tail": round(seen["seconds"] - seen["seconds_without_tail"], 1),
        "most_waiting_in_server": seen["most_waiting"],
        **found,
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--median", type=float, default=0.25, help="seconds that an answer takes")
    parser.add_argument("--sigma", type=float, default=1.0, help="of the logarithm of these seconds")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase == "serve":
        import asyncio

        asyncio.run(serve(options))
    elif options.phase:
        print(json.dumps(run_phase(options)))
    else:
        work = sum(seconds_of(f"row {number}", options) for number in range(options.rows))
        record = {name: value for name, value in vars(options).items() if value is not None}
        record["cpus"], record["load"] = os.cpu_count(), round(os.getloadavg()[0], 1)
        record["ideal_rows_per_second"] = round(options.rows / work * options.slots, 2)
        print(json.dumps(record | {phase: measure(phase, options) for phase in PHASES}, indent=1))


if __name__ == "__main__":
    main()
