"""A private event loop in a thread, so that blocking code can run coroutines wherever it is called.

It works in a plain script, in a notebook and in an actor, whether or not a loop runs there already.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class EventLoopThread:
    """An event loop that lives in a daemon thread until ``close`` is called or nobody refers to it.

    Args:
        slots: how many requests may be under way in it at once.

    Attributes:
        free: gives the slots away, in the order in which they are asked for; whoever runs here shares them.
    """

    def __init__(self, slots: int) -> None:
        self.free = asyncio.Semaphore(slots)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_serve, args=(loop,), name="distill-ray-models", daemon=True)
        thread.start()
        self._loop = loop
        self._close = weakref.finalize(self, _stop, loop, thread)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is running, end the thread and close the loop."""
        self._close()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join(timeout=5)
