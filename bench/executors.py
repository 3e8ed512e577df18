"""Executor against the process pools of the standard library, loky and pebble: tiny calls, two workers each.

Every pool keeps its workers for the whole topic; only one of them has work at a time. Each is used through its own
usual calls: submit and result, a window of 64 calls of which the oldest is awaited, and a map with chunks of one.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import operator
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from bench.measure import Metrics, Side, Topic, p50_us
from bench.tasks import tiny

WORKERS: Final = 2
WINDOW: Final = 64
INSTALL: Final = 'pip install "fastlam[bench]"'
OURS: Final = "fastlam Executor"
STANDARD: Final = "ProcessPoolExecutor"
ROUND_TRIP: Final = "submit().result() p50"
IN_WINDOW: Final = "window of 64"
UNITS: Final = {ROUND_TRIP: "µs", IN_WINDOW: "calls/s", "map, chunksize=1": "calls/s"}

Start = Callable[[int], Any]  # begins one call and returns its handle
Finish = Callable[[Any], int]  # waits for the result of a handle
Map = Callable[[Iterable[int]], Iterable[int]]
_result: Final = operator.methodcaller("result")


def window_per_second(start: Start, finish: Finish, count: int) -> float:
    """Calls a second with WINDOW of them under way."""
    begun = time.perf_counter()
    waiting: deque[Any] = deque()
    total = 0
    for index in range(count):
        if len(waiting) == WINDOW:
            total += finish(waiting.popleft())
        waiting.append(start(index))
    while waiting:
        total += finish(waiting.popleft())
    elapsed = time.perf_counter() - begun
    assert total == count * (count + 1) // 2, "a result was wrong"
    return count / elapsed


def map_per_second(map_all: Map, count: int) -> float:
    begun = time.perf_counter()
    total = sum(map_all(range(count)))
    elapsed = time.perf_counter() - begun
    assert total == count * (count + 1) // 2, "a result was wrong"
    return count / elapsed


def side(topic: Topic, start: Start, finish: Finish, map_all: Map) -> Side:
    trips, window, mapped = topic.scale(2000, 200), topic.scale(20_000, 2000), topic.scale(20_000, 2000)

    map_per_second(map_all, topic.scale(2000, 200))  # workers up, code warm

    def measure() -> Metrics:
        return {
            ROUND_TRIP: p50_us(lambda: finish(start(1)), trips),
            IN_WINDOW: window_per_second(start, finish, window),
            "map, chunksize=1": map_per_second(map_all, mapped),
        }

    return measure


def of_executor(topic: Topic, pool: Any) -> Side:
    """For everything that has the interface of concurrent.futures."""
    start = functools.partial(pool.submit, tiny)
    return side(topic, start, _result, lambda values: pool.map(tiny, values, chunksize=1))


def run(topic: Topic) -> None:
    from fastlam import Executor

    with contextlib.ExitStack() as stack:
        # The forked pools first: nothing of ours is in their processes.
        standard = stack.enter_context(ProcessPoolExecutor(WORKERS))
        forked = stack.enter_context(multiprocessing.Pool(WORKERS))
        sides: dict[str, Side] = {
            STANDARD: of_executor(topic, standard),
            "multiprocessing.Pool": side(
                topic,
                lambda value: forked.apply_async(tiny, (value,)),
                operator.methodcaller("get"),
                lambda values: forked.map(tiny, values, chunksize=1),
            ),
        }
        _add_loky(topic, stack, sides)
        _add_pebble(topic, stack, sides)
        sides = {OURS: of_executor(topic, stack.enter_context(Executor(WORKERS))), **sides}
        topic.in_turns(sides, UNITS)
    for peer in sides:
        if peer == OURS:
            continue
        at_least = (2.0, 12.0, 15.0) if peer == STANDARD else (None, None, None)
        topic.ratio(f"{ROUND_TRIP}: {peer} / ours", (peer, ROUND_TRIP), (OURS, ROUND_TRIP), at_least=at_least[0])
        for metric, bound in zip((IN_WINDOW, "map, chunksize=1"), at_least[1:], strict=True):
            topic.ratio(f"{metric}, calls/s: ours / {peer}", (OURS, metric), (peer, metric), at_least=bound)
    topic.note(f"{WORKERS} workers each; map of {topic.scale(20_000, 2000):,} calls.")


def _add_loky(topic: Topic, stack: contextlib.ExitStack, sides: dict[str, Side]) -> None:
    try:
        import loky
    except ImportError:
        topic.missing("loky", INSTALL)
        return
    pool = loky.ProcessPoolExecutor(max_workers=WORKERS)
    stack.callback(pool.shutdown, kill_workers=True)
    sides["loky"] = of_executor(topic, pool)


def _add_pebble(topic: Topic, stack: contextlib.ExitStack, sides: dict[str, Side]) -> None:
    try:
        import pebble
    except ImportError:
        topic.missing("pebble", INSTALL)
        return
    pool = stack.enter_context(pebble.ProcessPool(max_workers=WORKERS))
    sides["pebble"] = side(
        topic,
        lambda value: pool.schedule(tiny, args=(value,)),
        _result,
        lambda values: pool.map(tiny, values, chunksize=1).result(),
    )
