"""The clock of everything that may be made to pass faster: states, retries, event age, windows, schedules.

Invocations, init phases and metering never ask it; they read the monotonic clock of the system themselves.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol

Schedule = Callable[[float, Callable[[], None]], object]
"""`schedule(delay_seconds, callback)`: runs the callback once, later, in the thread that owns the records."""


class Clock(Protocol):
    def wall_ms(self) -> int:
        """Milliseconds since 1970."""

    def elapsed_ms(self) -> int:
        """Milliseconds since some fixed moment; never goes back."""


class SystemClock:
    """The machine's own time."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class VirtualClock:
    """Time that moves only when told to; what was scheduled runs, in order, as time passes over it."""

    def __init__(self, wall_ms: int = 1_767_225_600_000) -> None:
        self._start_ms = wall_ms
        self._elapsed_ms = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def wall_ms(self) -> int:
        return self._start_ms + int(self._elapsed_ms)

    def elapsed_ms(self) -> int:
        return int(self._elapsed_ms)

    def schedule(self, delay_seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._elapsed_ms + delay_seconds * 1000, next(self._order), callback))

    def advance(self, seconds: float) -> None:
        until = self._elapsed_ms + seconds * 1000
        while self._due and self._due[0][0] <= until:
            self._elapsed_ms, _, callback = heapq.heappop(self._due)
            callback()
        self._elapsed_ms = until

    @property
    def pending(self) -> int:
        return len(self._due)
