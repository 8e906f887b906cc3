"""An event loop in a thread of its own, so that a server that hangs blocks no caller."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

CLOSE_SECONDS_MAX = 5.0

_Answer = TypeVar("_Answer")


class LoopThread:
    """Runs coroutines for callers that have no loop."""

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._closed = False
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, _Answer]) -> concurrent.futures.Future[_Answer]:
        """Begin; the future holds the answer."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, last: Callable[[], Awaitable[None]] | None = None) -> None:
        """Abandon what is under way, run `last`, and end the thread; idempotent."""
        if self._closed:
            return
        self._closed = True
        self.start(self._shut(last)).result(CLOSE_SECONDS_MAX)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS_MAX)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _shut(self, last: Callable[[], Awaitable[None]] | None) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if last is not None:
            await last()
