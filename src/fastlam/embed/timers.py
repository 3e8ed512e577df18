"""Real time for a Runtime's events: one thread, started when something is to wait."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Timers:
    """`run` gets each callback when it is due, in the thread of the timers."""

    def __init__(self, run: Callable[[Callable[[], None]], object]) -> None:
        self._run = run
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def schedule(self, delay_seconds: float, callback: Callable[[], None]) -> None:
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._due, (time.monotonic() + delay_seconds, next(self._order), callback))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="fastlam-timers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                callback = heapq.heappop(self._due)[2]
            self._run(callback)

    def close(self) -> None:
        """What is still to come is dropped. Not to be called while the thread's callbacks need the caller."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
