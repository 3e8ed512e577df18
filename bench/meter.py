"""Duration against the clock that the handler reads itself, and against the caller's, on an idle and on a busy machine.

The handler reads CLOCK_MONOTONIC at its first and before its last line; Duration is read around the handler by the
worker. The difference is what the meter adds to the bill. The caller's clock has the journey in it, so the median of an
empty handler's calls at the same pace (caller's time less Duration) is taken off.
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
        self.caller: list[float] = []


def measure(function: Function, how: str, ms: int, count: int, errors: Errors) -> None:
    event = f'{{"how": "{how}", "ms": {ms}}}'.encode()
    journeys, empty = [], []
    for _ in range(count):
        begun = time.perf_counter_ns()
        result = function.invoke(event)
        journeys.append((time.perf_counter_ns() - begun) / 1e3 - result.duration_ms * 1e3)
        errors.handler.append(result.duration_ms * 1e3 - result.payload / 1e3)
        # The empty handler at the same pace, so that CPUs and caches have been left alone for as long.
        time.sleep(ms / 1e3)
        begun = time.perf_counter_ns()
        result = function.invoke(EMPTY)
        empty.append((time.perf_counter_ns() - begun) / 1e3 - result.duration_ms * 1e3)
    overhead = statistics.median(empty)
    errors.caller += [journey - overhead for journey in journeys]


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
        topic.check(f"{name}, p50", percentile(absolute, 50), "µs", at_most=20.0, detail=detail)
        topic.check(f"{name}, p99", percentile(absolute, 99), "µs", at_most=100.0, detail=detail)
    for (load, how, ms), errors in all_errors.items():
        absolute = [abs(value) for value in errors.caller]
        detail = f"of its size: p50 {percentile(absolute, 50):,.0f}, p99 {percentile(absolute, 99):,.0f} µs"
        name = f"{load}: {how} {ms} ms, caller's clock − overhead − Duration, |p50|"
        value = abs(statistics.median(errors.caller))
        topic.check(name, value, "µs", at_most=20.0 if load == "idle" else None, detail=detail)
    topic.note(
        f"Overload: {busy} busy processes on {len(os.sched_getaffinity(0))} CPUs. The caller's clock also has in it how"
        " long caller and worker wait for a CPU, which no meter can tell: under overload it has no target."
    )
