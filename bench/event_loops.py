"""Awaiting in asyncio: the door that event loops have, against one self-pipe write for each answer.

The other side is what a program does without that door: `asyncio.wrap_future` of a future of `submit`, and for a
function a completion callback that calls `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop
from bench.fingerprint import MEMORY_MB
from bench.measure import Metrics, Side, Topic
from bench.tasks import tiny

WORKERS: Final = 2
GATHERED: Final = 1000
ROUND_TRIP: Final = "await, p50"
TOGETHER: Final = f"gather of {GATHERED:,}"
LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def echo(event: Any, context: Any) -> Any:
    return event


async def callback_invoke(dispatcher: Any, function: Any, event: int) -> Any:
    """One invocation whose end is told by `call_soon_threadsafe`."""
    from fastlam.core.dispatcher import Invocation

    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    invocation = Invocation(function.target, b"%d" % event)
    invocation.invoked_function_arn = function.arn
    invocation.on_done = lambda _: loop.call_soon_threadsafe(wake)
    dispatcher.submit(invocation)
    await future
    return invocation


def side(make_loop: Callable[[], asyncio.AbstractEventLoop], call: Callable[[int], Awaitable[Any]], trips: int) -> Side:
    async def main() -> Metrics:
        clock = time.perf_counter_ns
        times = []
        for number in range(trips):
            begun = clock()
            await call(number)
            times.append((clock() - begun) / 1e3)
        rates = []
        for _ in range(5):
            begun = clock()
            await asyncio.gather(*(call(number) for number in range(GATHERED)))
            rates.append(GATHERED * 1e9 / (clock() - begun))
        return {ROUND_TRIP: statistics.median(times), TOGETHER: statistics.median(rates)}

    def measure() -> Metrics:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(main())

    return measure


def run(topic: Topic) -> None:
    from fastlam import Executor, Runtime

    trips = topic.scale(2000, 200)
    with Executor(WORKERS) as pool, Runtime(concurrency=GATHERED) as runtime:
        function = runtime.function("echo", handler=echo, memory=MEMORY_MB, timeout=10)
        dispatcher = pool.dispatcher  # all executors and runtimes of a process share it

        async def invoked(number: int) -> Any:
            return await callback_invoke(dispatcher, function, number)

        doors: dict[str, Callable[[int], Awaitable[Any]]] = {
            "asubmit": lambda number: pool.asubmit(tiny, number),
            "wrap_future(submit)": lambda number: asyncio.wrap_future(pool.submit(tiny, number)),
            "ainvoke": function.ainvoke,
            "call_soon_threadsafe": invoked,
        }
        sides = {
            f"{name}, {loop}": side(make_loop, call, trips)
            for loop, make_loop in LOOPS.items()
            for name, call in doors.items()
        }
        for measure in sides.values():
            measure()  # environments up, code warm
        topic.in_turns(sides, {ROUND_TRIP: "µs", TOGETHER: "calls/s"})
    for loop in LOOPS:
        for ours, other in (("asubmit", "wrap_future(submit)"), ("ainvoke", "call_soon_threadsafe")):
            topic.ratio(
                f"{ROUND_TRIP}, {loop}: {other} / {ours}",
                (f"{other}, {loop}", ROUND_TRIP),
                (f"{ours}, {loop}", ROUND_TRIP),
            )
            topic.ratio(
                f"{TOGETHER}, {loop}, calls/s: {ours} / {other}",
                (f"{ours}, {loop}", TOGETHER),
                (f"{other}, {loop}", TOGETHER),
            )
    topic.note(
        f"{WORKERS} workers; the function may have {GATHERED:,} environments, and has them after the first gather."
    )
