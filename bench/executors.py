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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from bench.lane_child import in_child
from bench.measure import Metrics, Side, Topic, p50_us
from bench.tasks import tiny

WORKERS: Final = 2
WINDOW: Final = 64
INSTALL: Final = 'pip install "fastlam[bench]"'
OURS: Final = "fastlam Executor"
OTHER_LANE: Final = "fastlam Executor, zmq lane"
STANDARD: Final = "ProcessPoolExecutor"
ROUND_TRIP: Final = "submit().result() p50"
IN_WINDOW: Final = "window of 64"
MAPPED: Final = "map, chunksize=1"
UNITS: Final = {ROUND_TRIP: "µs", IN_WINDOW: "calls/s", MAPPED: "calls/s"}
# At least: the peer's round trip over ours, our calls a second over the peer's.
TARGETS: Final = {
    STANDARD: {ROUND_TRIP: 15.0, IN_WINDOW: 40.0, MAPPED: 60.0},
    OTHER_LANE: {ROUND_TRIP: 6.0},
}

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
            MAPPED: map_per_second(map_all, mapped),
        }

    return measure


def of_executor(topic: Topic, pool: Any) -> Side:
    """For everything that has the interface of concurrent.futures."""
    start = functools.partial(pool.submit, tiny)
    return side(topic, start, _result, lambda values: pool.map(tiny, values, chunksize=1))


@contextlib.contextmanager
def executor_side(topic: Topic) -> Iterator[Side]:
    """Our own side, on the lane of the process that asks for it."""
    from fastlam import Executor

    with Executor(WORKERS) as executor:
        yield of_executor(topic, executor)


def run(topic: Topic) -> None:
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
        other_lane = stack.enter_context(in_child(topic, "zmq", "bench.executors:executor_side"))
        sides = {OURS: stack.enter_context(executor_side(topic)), OTHER_LANE: other_lane, **sides}
        topic.in_turns(sides, UNITS)
    for peer in sides:
        if peer == OURS:
            continue
        at_least = TARGETS.get(peer, {})
        topic.ratio(
            f"{ROUND_TRIP}: {peer} / ours", (peer, ROUND_TRIP), (OURS, ROUND_TRIP), at_least=at_least.get(ROUND_TRIP)
        )
        for metric in (IN_WINDOW, MAPPED):
            topic.ratio(
                f"{metric}, calls/s: ours / {peer}", (OURS, metric), (peer, metric), at_least=at_least.get(metric)
            )
    alone = topic.series(OURS, ROUND_TRIP).median
    topic.check(f"ours, {ROUND_TRIP}", alone, "µs", detail="12 µs or less where the machine is quiet")
    topic.note(f"{WORKERS} workers each; map of {topic.scale(20_000, 2000):,} calls.")
    topic.note(
        "Our map sends its tasks one by one: none is coalesced with another into one task. Several records may be "
        "written before a worker is woken."
    )
    topic.note(f"{OTHER_LANE}: in a process of its own, which measures itself when it is its turn.")


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
