"""A thread that lives as long as the zygotes it has started.

The kernel's parent-death signal follows the *thread* that made a child: a zygote that a short-lived thread had started
would be told that its parent is gone although the process lives on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Keeper:
    """Runs functions in one thread of its own, which is started when first needed and ends with `close`."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[[], T]) -> T:
        """function() in the keeper's thread; its result, or its exception."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="fastlam-keeper", daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._queue.put((function, future))
        return future.result()

    def close(self) -> None:
        """Ends the thread; call when the processes it has started are gone."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _main(self) -> None:
        while (order := self._queue.get()) is not None:
            function, future = order
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
                future.set_exception(error)
            del order, function, future
