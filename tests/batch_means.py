"""What a simulation says of a steady state: an interval by batch means, wide enough that chance alone hardly leaves it.

A run is cut into batches that are much longer than the system remembers; the batches' values are then as good as
independent, and their mean lies around the true one as Student's distribution says.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from statistics import NormalDist
from typing import Any, Final, NamedTuple

from fastlam.core.dispatcher import (
    AccountPool,
    FunctionPool,
    Sampler,
    SimulatedDispatcher,
    SimulatedLauncher,
    Source,
    Target,
)
from fastlam.dispatch.faults import Faults

CONFIDENCE: Final = 1 - 1e-6  # of one interval: a test run has dozens of them, each with other random numbers
BATCHES: Final = 40


class Interval(NamedTuple):
    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def student(level: float, freedom: int) -> float:
    """The quantile of Student's distribution, by its expansion around the normal one (good to 0.1 % here)."""
    z = NormalDist().inv_cdf(level)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def interval(values: list[float]) -> Interval:
    """Around the mean of independent values."""
    factor = student((1 + CONFIDENCE) / 2, len(values) - 1)
    half = factor * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(statistics.mean(values) - half, statistics.mean(values) + half)


class System(AbstractContextManager["System"]):
    """A simulated dispatcher and what is asked of it in tests."""

    def __init__(self, seed: int, limit: int = 1_000_000, *, enforce_rates: bool = False, **options: Any) -> None:
        print("simulation's seed:", seed)
        self.dispatcher = SimulatedDispatcher(SimulatedLauncher(), Faults(), **options)
        self.dispatcher.seed(seed)
        self.account = AccountPool("000000000000", "us-east-1", limit, enforce_rates)
        self.targets: list[Target] = []

    def function(
        self, reserved: int | None = None, timeout_seconds: float = 900.0, start: Sampler | None = None
    ) -> Target:
        name = f"f{len(self.targets)}"
        pool = FunctionPool(self.account, name)
        if reserved is not None:
            pool.set_reserved(reserved)
        target = Target(name, start, pool, round(timeout_seconds * 1000))
        self.targets.append(target)
        return target

    def poisson(self, target: Target, rate: float, service: Sampler) -> None:
        self.dispatcher.add(Source(target, service).at_rate(rate))

    def batches(
        self, seconds: float, measures: Mapping[str, Callable[[dict[str, Any]], float]], warm_up: float = 0.0
    ) -> dict[str, Interval]:
        """Intervals of what `measures` read off the figures of each batch."""
        self.dispatcher.run(warm_up or seconds)
        found: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(BATCHES):
            self.dispatcher.clear()
            self.dispatcher.run(self.dispatcher.now_seconds + seconds)
            figures = self.dispatcher.figures()
            for name, measure in measures.items():
                found[name].append(measure(figures))
        return {name: interval(values) for name, values in found.items()}

    def __exit__(self, *_: object) -> None:
        self.dispatcher.close()


def throttled(figures: dict[str, Any]) -> float:
    """Share of the arrivals."""
    share: float = figures["throttled"] / figures["arrivals"]
    return share
