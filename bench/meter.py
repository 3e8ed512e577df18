"""Duration against the clock that the handler reads itself, and against the caller's, on an idle and on a busy machine.

The handler reads CLOCK_MONOTONIC at its first and before its last line; Duration is read around the handler by the
worker. The difference is what the meter adds to the bill.

The caller's clock has the journey in it, which an empty handler's calls measure (caller's time less Duration). What a
journey costs depends on how long CPUs and caches have been left alone: with the empty handler called at once it is too
short, called after a pause of the same length too long, since both of its wakes are then those of a CPU that sleeps.
Both are measured; what the meter hides or invents is what lies outside of the two.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from bench.daemon import FUNCTIONS
from bench.fingerprint import MEMORY_MB
from bench.measure import Topic, percentile

if TYPE_CHECKING:
    from fastlam.embed.function import Function

CASES: Final = ((1, 200), (10, 60), (100, 20))  # milliseconds, calls a round
EMPTY: Final = b'{"how": "", "ms": 0}'
P50_US_MAX: Final = 20.0
P99_US_MAX: Final = 100.0
BUSY_PER_CPU: Final = 4
# Ends itself when its parent is gone.
BURN: Final = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(1000000): pass"


@contextlib.contextmanager
def busy_machine() -> Iterator[int]:
    """Four processes a CPU that do nothing but use it."""
    count = BUSY_PER_CPU * len(os.sched_getaffinity(0))
    processes = [subprocess.Popen([sys.executable, "-I", "-c", BURN, str(os.getpid())]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield count
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


class Errors:
    """Of one case, in microseconds."""

    def __init__(self) -> None:
        self.handler: list[float] = []
        self.journey: list[float] = []  # caller's time less Duration
        self.at_once: list[float] = []  # the same of the empty handler
        self.after_pause: list[float] = []

    def outside(self) -> tuple[float, float, float]:
        """Distance of the median journey from what the empty handler's medians enclose; journey less each of them."""
        journey = statistics.median(self.journey)
        low, high = sorted(journey - statistics.median(empty) for empty in (self.at_once, self.after_pause))
        return max(low, -high, 0.0), low, high


def measure(function: Function, how: str, ms: int, count: int, errors: Errors) -> None:
    event = f'{{"how": "{how}", "ms": {ms}}}'.encode()
    for _ in range(count):
        begun = time.perf_counter_ns()
        result = function.invoke(event)
        errors.journey.append((time.perf_counter_ns() - begun) / 1e3 - result.duration_ms * 1e3)
        errors.handler.append(result.duration_ms * 1e3 - result.payload / 1e3)
        errors.at_once.append(journey_us(function))
        time.sleep(ms / 1e3)
        errors.after_pause.append(journey_us(function))


def journey_us(function: Function) -> float:
    """What one call of the empty handler takes besides its Duration."""
    begun = time.perf_counter_ns()
    result = function.invoke(EMPTY)
    return (time.perf_counter_ns() - begun) / 1e3 - result.duration_ms * 1e3


def run(topic: Topic) -> None:
    from fastlam import Runtime

    all_errors: dict[tuple[str, str, int], Errors] = {}
    with Runtime() as runtime:
        code = FUNCTIONS / "meter"
        function = runtime.function("meter", "app.handler", code=code, memory=MEMORY_MB, timeout=30)
        function.invoke(EMPTY)

        def cases(load: str) -> None:
            for how in ("sleep", "burn"):
                for ms, calls in CASES:
                    topic.progress(f"{load}: {how} {ms} ms")
                    count = topic.scale(calls, calls // 10)
                    errors = all_errors.setdefault((load, how, ms), Errors())
                    measure(function, how, ms, count, errors)

        for _ in range(topic.rounds):
            cases("idle")
            with busy_machine() as busy:
                cases("overload")
    for (load, how, ms), errors in all_errors.items():
        absolute = [abs(value) for value in errors.handler]
        detail = f"{len(absolute)} calls"
        name = f"{load}: {how} {ms} ms, |Duration − handler's clock|"
        topic.check(f"{name}, p50", percentile(absolute, 50), "µs", at_most=P50_US_MAX, detail=detail)
        topic.check(f"{name}, p99", percentile(absolute, 99), "µs", at_most=P99_US_MAX, detail=detail)
    for (load, how, ms), errors in all_errors.items():
        outside, low, high = errors.outside()
        name = f"{load}: {how} {ms} ms, caller's clock − overhead − Duration, p50"
        at_most = P50_US_MAX if load == "idle" else None
        topic.check(name, outside, "µs outside", at_most=at_most, detail=f"{low:+,.0f} to {high:+,.0f} µs")
    topic.note(
        f"Overload: {busy} busy processes on {len(os.sched_getaffinity(0))} CPUs. The caller's clock also has in it how"
        " long caller and worker wait for a CPU, which no meter can tell: under overload it has no target. The interval:"
        " less the empty handler called after a pause, and called at once."
    )
