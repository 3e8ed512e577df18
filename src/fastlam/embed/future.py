"""The future of one task: a concurrent.futures.Future that costs little while nobody looks at it from elsewhere.

All of it is core's FutureCall, which is the task itself. Here it only gets the name by which concurrent.futures and
asyncio know what a future is. The rest is the standard library's: callbacks are added, and a future is shown, as there.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

from fastlam.core.dispatcher import FutureCall

T = TypeVar("T")


class TaskFuture(FutureCall, Future[T]):  # FutureCall has what is needed of Future
    """Returned by Executor.submit. `result` drives the dispatcher instead of sleeping on a condition."""
