"""The clock of everything that may be made to pass faster: retries, event age, windows, schedules, states.

Invocations, init phases and metering never ask it; they read the monotonic clock of the system themselves.
"""

from __future__ import annotations

import heapq
import itertools
import re
import time
from collections.abc import Callable
from typing import Final, Protocol

Schedule = Callable[[float, Callable[[], None]], object]
"""`schedule(delay_seconds, callback)`: runs the callback once, later, in the thread that owns the records."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d)\s*")


class Clock(Protocol):
    def wall_ms(self) -> int:
        """Milliseconds since 1970."""

    def elapsed_ms(self) -> int:
        """Milliseconds since some fixed moment; never goes back."""

    def begin_work(self) -> None:
        """Something has begun that takes real time and belongs to this moment: a virtual clock stands still until it
        ends. Any number of them may be under way.
        """

    def end_work(self) -> None:
        """One of them is over. In the thread that owns the records, as everything here."""


class SystemClock:
    """The machine's own time."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def begin_work(self) -> None:
        pass

    def end_work(self) -> None:
        pass


class Scheduled:
    """What a virtual clock will run."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """Time that moves only when told to; what was scheduled runs, in order, as time passes over it.

    What a callback starts may take real time, such as an attempt in an execution environment: it says `begin_work` and
    `end_work`, and time does not go on past it. `advance` needs somebody to wait with then (`wait_idle`, which a
    Runtime sets); `advance_then` does without, and is for those who must not wait, such as an event loop.
    """

    def __init__(self, wall_ms: int = 1_767_225_600_000) -> None:
        self._start_ms = wall_ms
        self._elapsed_ms = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Scheduled]] = []
        self._works = 0
        self._advances: list[tuple[float, Callable[[], None]]] = []  # under way: until when, and whom to tell
        self._stepping = False
        self.run: Callable[[Callable[[], None]], object] = lambda callback: callback()
        self.wait_idle: Callable[[Callable[[], bool]], object] | None = None

    def wall_ms(self) -> int:
        return self._start_ms + int(self._elapsed_ms)

    def elapsed_ms(self) -> int:
        return int(self._elapsed_ms)

    def schedule(self, delay_seconds: float, callback: Callable[[], None]) -> Scheduled:
        scheduled = Scheduled(callback)
        heapq.heappush(self._due, (self._elapsed_ms + delay_seconds * 1000, next(self._order), scheduled))
        return scheduled

    @property
    def pending(self) -> int:
        """How many callbacks have been scheduled and not run."""
        return sum(scheduled.callback is not None for _, _, scheduled in self._due)

    @property
    def works(self) -> int:
        """What time stands still for."""
        return self._works

    @property
    def next_due_seconds(self) -> float | None:
        """From now until the next callback."""
        first = min((due_ms for due_ms, _, scheduled in self._due if scheduled.callback is not None), default=None)
        return None if first is None else max(0.0, (first - self._elapsed_ms) / 1000)

    def begin_work(self) -> None:
        self._works += 1

    def end_work(self) -> None:
        self._works -= 1
        if self._works == 0 and self._advances and not self._stepping:
            self._step()

    def advance(self, duration: float | str) -> None:
        """Lets so much time pass: seconds, or a text such as "90s", "2m" or "1h 30m". Returns when everything that was
        due by then has run, and everything that it has started is over.
        """
        over: list[bool] = []
        seconds = seconds_of(duration)
        self.run(lambda: self.advance_then(seconds, lambda: over.append(True)))
        if not over:
            if self.wait_idle is None:
                raise RuntimeError("Something that this clock waits for is under way: use `advance_then`.")
            self.wait_idle(lambda: bool(over))

    def advance_then(self, duration: float | str, done: Callable[[], None]) -> None:
        """As `advance`, and calls `done` instead of waiting: perhaps at once. In the thread that owns the records. An
        advance that begins while another one is under way ends no earlier than that.
        """
        begin = max([self._elapsed_ms, *(until for until, _ in self._advances)])
        self._advances.append((begin + seconds_of(duration) * 1000, done))
        if not self._stepping:
            self._step()

    def _step(self) -> None:
        """Runs what is due, until something takes real time or the advance is over."""
        self._stepping = True
        try:
            while self._advances and not self._works:
                until, done = self._advances[0]
                if self._due and self._due[0][0] <= until:
                    due_ms, _, scheduled = heapq.heappop(self._due)
                    if scheduled.callback is not None:
                        self._elapsed_ms = max(self._elapsed_ms, due_ms)
                        scheduled.callback()
                else:
                    self._elapsed_ms = max(self._elapsed_ms, until)
                    del self._advances[0]
                    done()
        except BaseException:
            self._advances.clear()  # whoever has called hears of it; the others are not left in between
            raise
        finally:
            self._stepping = False


_TURNS: Final = 16  # of an event loop


def end_work_in_turns(clock: Clock, call_soon: Callable[..., object], turns: int = _TURNS) -> None:
    """Ends a work when coroutines that have just been woken have had that many turns of their loop, to begin what they
    were woken for: virtual time would go on before they do.
    """
    if turns > 0 and isinstance(clock, VirtualClock):
        call_soon(end_work_in_turns, clock, call_soon, turns - 1)
    else:
        clock.end_work()


def seconds_of(duration: float | str) -> float:
    """Seconds, from a number of them or from a text such as "90s" or "1h 30m". ValueError."""
    if isinstance(duration, str):
        parts, position, seconds = 0, 0, 0.0
        while (found := _DURATION.match(duration, position)) is not None:
            seconds += float(found[1]) * _UNITS[found[2]]
            position = found.end()
            parts += 1
        if not parts or position != len(duration):
            try:
                seconds = float(duration)
            except ValueError:
                raise ValueError(f"{duration!r} is no duration: write one such as 90s, 2m or 1h30m.") from None
    else:
        seconds = float(duration)
    if not 0 <= seconds < 1e10:
        raise ValueError(f"{duration!r} is no time that can pass: give seconds, 0 or more.")
    return seconds
