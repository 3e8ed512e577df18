"""Slow work (unpacking, hashing, large bodies) away from the loop thread, its result back in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Done = Callable[[Any, BaseException | None], None]
RunBlocking = Callable[[Callable[[], Any], Done], None]
"""`run_blocking(work, done)`: runs `work` elsewhere, then `done(result, None)` or `done(None, error)` in the loop
thread.
"""


class Workers:
    """Worker threads of one loop. Each call is a RunBlocking; `close` waits for what runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int = 2) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fastlam-blocking")

    def __call__(self, work: Callable[[], Any], done: Done) -> None:
        def finished(future: Future[Any]) -> None:
            error = future.exception()
            result = None if error is not None else future.result()
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(done, result, error)

        self._pool.submit(work).add_done_callback(finished)

    def in_background(self, work: Callable[[], object]) -> None:
        """For work whose result nobody waits for."""
        self._pool.submit(work)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
