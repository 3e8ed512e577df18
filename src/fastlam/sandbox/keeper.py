"""A thread that lives as long as the process and starts zygotes.

The kernel's parent-death signal follows the *thread* that made a child: a zygote that a short-lived thread had started would be told that
its parent is gone although the process lives on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_queue: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] | None = None
_pid = 0


def run(function: Callable[[], T]) -> T:
    """function() in the keeper thread; its result, or its exception."""
    global _queue, _pid
    with _lock:
        if _queue is None or _pid != os.getpid():
            _queue, _pid = SimpleQueue(), os.getpid()
            threading.Thread(target=_main, args=(_queue,), name="fastlam-keeper", daemon=True).start()
        queue = _queue
    future: Future[T] = Future()
    queue.put((function, future))
    return future.result()


def _main(queue: SimpleQueue[tuple[Callable[[], Any], Future[Any]]]) -> None:
    while True:
        function, future = queue.get()
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            future.set_exception(error)
        del function, future
