"""Waiting by the clock that may be virtual: batching windows, retries, and what has grown too old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastlam.clock import Clock, Schedule, end_work_in_turns

_T = TypeVar("_T")


class Timing:
    """The clock of what users can make pass faster, for coroutines."""

    def __init__(self, clock: Clock, schedule: Schedule) -> None:
        self.clock = clock
        self._schedule = schedule

    def wall_ms(self) -> int:
        return self.clock.wall_ms()

    def elapsed_seconds(self) -> float:
        return self.clock.elapsed_ms() / 1000

    def timer(self, seconds: float) -> asyncio.Future[None]:
        """Done when so much time has passed. One that nobody awaits any longer costs nothing but its place."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def ring() -> None:
            if not future.done():
                future.set_result(None)
                self.clock.begin_work()
                end_work_in_turns(self.clock, loop.call_soon)

        self._schedule(max(0.0, seconds), ring)
        return future

    async def sleep(self, seconds: float) -> None:
        await self.timer(seconds)


async def first_of(*waits: Awaitable[Any] | asyncio.Event) -> None:
    """Returns when one of them is done; the others are cancelled. Futures that are not ours to cancel are shielded by
    whoever passes them.
    """
    tasks = [asyncio.ensure_future(wait.wait() if isinstance(wait, asyncio.Event) else wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unless(stopping: asyncio.Event, work: Awaitable[_T]) -> _T | None:
    """The result of the work, or None once `stopping` is set; then the work is cancelled."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stop.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)
