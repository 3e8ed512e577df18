"""Round trips while others want the CPUs: Executor and ProcessPoolExecutor, with two processes that burn CPU beside them.

A worker that waits by spinning looks good on an idle machine and bad on this one. Burners are plain processes with the
priority that every process has; they run from before the first round until after the last one. A round is so much time
and not so many calls: what the scheduler does to a side shows within seconds, not within a thousand round trips of 10 µs.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from bench.executors import OURS, STANDARD, WORKERS
from bench.measure import Metrics, Side, Topic, percentile, times_us
from bench.tasks import tiny

BURNERS: Final = 2
BURN: Final = "print(flush=True)\nwhile True: pass"
P50: Final = "submit().result() p50"
P99: Final = "submit().result() p99"
WARM_CALLS: Final = 200
CALLS_BETWEEN_LOOKS: Final = 100  # at the clock, whether the round is over


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute, all of them at it when the block begins."""
    with contextlib.ExitStack() as stack:
        burners = []
        for _ in range(count):
            words = [sys.executable, "-I", "-S", "-c", BURN]
            burner = stack.enter_context(
                subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(burner.kill)
            burners.append(burner)
        for burner in burners:
            assert burner.stdout is not None
            burner.stdout.readline()
        yield
        ended = [burner.returncode for burner in burners if burner.poll() is not None]
        if ended:
            raise RuntimeError(f"burners ended on their own: {ended}")


def side(pool: Any, round_ms: int) -> Side:
    """Of anything with the interface of concurrent.futures."""
    submit = functools.partial(pool.submit, tiny, 1)
    times_us(lambda: submit().result(), WARM_CALLS)

    def measure() -> Metrics:
        times: list[float] = []
        end = time.monotonic() + round_ms / 1e3
        while time.monotonic() < end:
            times += times_us(lambda: submit().result(), CALLS_BETWEEN_LOOKS)
        return {P50: statistics.median(times), P99: percentile(times, 99)}

    return measure


def run(topic: Topic) -> None:
    from fastlam import Executor

    round_ms = topic.scale(4000, 500)
    # The forked pool first: nothing of ours is in its processes.
    with ProcessPoolExecutor(WORKERS) as standard:
        peer = side(standard, round_ms)
        with Executor(WORKERS) as executor:
            sides = {OURS: side(executor, round_ms), STANDARD: peer}
            with burning(BURNERS):
                topic.in_turns(sides, {P50: "µs", P99: "µs"})
    topic.ratio(f"{P99}: ours / {STANDARD}", (OURS, P99), (STANDARD, P99), at_most=1.0)
    topic.ratio(f"{P50}: ours / {STANDARD}", (OURS, P50), (STANDARD, P50))
    topic.note(f"{WORKERS} workers each, {BURNERS} burners, {round_ms / 1e3:g} s of each side a round.")
