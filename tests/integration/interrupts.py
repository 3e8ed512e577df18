"""Ctrl-C again and again, for what must not lose anything by it."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Self


class Interrupts:
    """As long as the block runs, the main thread has a SIGINT every `seconds`, which is a KeyboardInterrupt wherever it
    is at that moment. One at a time, and only while `armed`: what deals with one is left in peace.
    """

    def __init__(self, seconds: float) -> None:
        self.armed = False
        self.count = 0
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._raise)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.armed = False
        self._over.set()
        self._thread.join()
        signal.signal(signal.SIGINT, self._before)

    def _send(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not self._over.wait(self._seconds):
            signal.pthread_kill(main, signal.SIGINT)

    def _raise(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            self.count += 1
            raise KeyboardInterrupt
