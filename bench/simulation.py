"""The dispatcher on a virtual clock: a day of load like Azure's, and what one arrival costs by the size of the machine."""

from __future__ import annotations

import time
from typing import Final

from bench.measure import Topic

from fastlam.core.dispatcher import Sampler
from fastlam.harness.simulation.plain import plain
from fastlam.harness.simulation.run import Simulation
from fastlam.harness.simulation.synthetic import azure_like
from fastlam.harness.simulation.workload import Limits

FUNCTIONS: Final = 3000
INVOCATIONS: Final = 20_000_000
DAY_SECONDS: Final = 86_400
SECONDS_MAX: Final = 600.0
SEED: Final = 1
COST: Final = "CPU of an arrival"
SMALL, LARGE = 50, 5000  # environments of a machine that is full
ONE, FULL_SMALL, FULL_LARGE = "one function, 10 reserved", f"{SMALL} environments, full", f"{LARGE} environments, full"


def cost(per_second: float, limits: Limits, reserved: int | None, arrivals: int) -> float:
    """Microseconds of CPU for each arrival, once everything is warm."""
    functions = plain(1, per_second, "exponential", 1.0, reserved=reserved)
    with Simulation(functions, limits, SEED) as simulation:
        simulation.dispatcher.run_arrivals(arrivals // 4 + round(4 * per_second))
        begun = time.process_time()
        simulation.dispatcher.run_arrivals(arrivals)
        return (time.process_time() - begun) / arrivals * 1e6


def full(environments: int, arrivals: int) -> float:
    """Two per cent more calls than the machine can run: nearly every one of them waits."""
    return cost(environments * 1.02, Limits(10**6, environments), None, arrivals)


def run(topic: Topic) -> None:
    arrivals = topic.scale(300_000, 30_000)
    topic.in_turns(
        {
            ONE: lambda: {COST: cost(8.0, Limits(), 10, arrivals)},
            FULL_SMALL: lambda: {COST: full(SMALL, arrivals)},
            FULL_LARGE: lambda: {COST: full(LARGE, arrivals)},
        },
        {COST: "µs"},
    )
    topic.check("CPU of an arrival, one function (median)", topic.series(ONE, COST).median, "µs", at_most=2.0)
    topic.ratio(
        f"a call that waits: {LARGE} / {SMALL} environments", (FULL_LARGE, COST), (FULL_SMALL, COST), at_most=4.0
    )
    day(topic)


def day(topic: Topic) -> None:
    """A day of the synthetic trace, once."""
    count = topic.scale(FUNCTIONS, FUNCTIONS // 10)
    invocations = topic.count or topic.scale(INVOCATIONS, INVOCATIONS // 40)
    topic.progress(f"a day of {count} functions")
    functions = azure_like(count, SEED, invocations, Sampler("lognormal", -1.4, 0.5))
    with Simulation(functions, Limits(concurrency=10**6), SEED) as simulation:
        begun, used = time.perf_counter(), time.process_time()
        simulation.run(DAY_SECONDS)
        seconds, used = time.perf_counter() - begun, time.process_time() - used
        figures = simulation.figures()
    arrivals = figures["arrivals"]
    topic.check(
        f"24 hours like Azure's, {count:,} functions",
        seconds,
        "s",
        at_most=SECONDS_MAX,
        detail=f"{arrivals:,} arrivals, {figures['cold_starts'] / arrivals:.2%} cold, environments: most"
        f" {figures['environments_most']:,}, {used / arrivals * 1e6:.2f} µs of CPU an arrival",
    )
    topic.check("arrivals simulated, a second of wall time", arrivals / seconds, "/s")
    topic.check("invocations of that day", arrivals, "", at_least=topic.scale(10_000_000, 100_000))
